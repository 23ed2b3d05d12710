"""Imports run one way: an AST walk over both packages."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: From the bottom up; a module may import what stands in its own layer or below.
LAYERS = [
    {"_lazy", "_version", "exceptions", "severity", "_fork", "_answers"},
    {
        "signature",
        "_syntax_trees",
        "source_templates",
        "call_sites",
        "policy",
        "_anomaly",
        "_throttle",
        "families",
    }
    | {"_complaints", "_worker"},
    {"fitting", "importance", "optimizer", "decision", "patterns", "scope", "_transport"},
    {"planning", "client", "_policy_store"},
    {"_ledger", "_engine", "_refresher", "_notices", "_planner"},
    {"sampler"},
    {"_settings"},
    {"integrations", "performance", "export", "middleware"},
    {"metrics"},
    {"configure"},
    {"simulation", "cli"},
]
#: Third-party packages and where they may be imported at all.
HOMES = {
    "structlog": {"integrations/structlog.py", "configure.py", "export/structlog.py"},
    "loguru": {"integrations/loguru.py", "export/loguru.py"},
    "opentelemetry": {
        *("export/opentelemetry.py", "export/otlp.py", "export/capture.py"),
        "metrics/opentelemetry.py",
    },
    "prometheus_client": {"metrics/prometheus.py"},
    "requests": {"_transport.py", "export/http.py", "cli/check_posthog.py"},
    "xxhash": {"signature.py"},
    "flask": set(),
    "peewee": set(),
    "pydantic": set(),
    "openai": set(),
    "anthropic": set(),
}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path, *, type_checking):
    """Names of the modules that *path* imports; those under TYPE_CHECKING only if asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    if not type_checking:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped.update(id(child) for child in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name):
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


@pytest.mark.parametrize("path", modules("lipservice"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_of_the_sdk_imports_only_what_lies_below_it(path):
    own = path.relative_to(ROOT / "lipservice").parts[0].removesuffix(".py")
    if own in {"__init__", "__main__"}:
        return
    assert layer_of(own) is not None, f"{own} stands in no layer: add it to LAYERS"
    for name in imports(path, type_checking=False):
        package, _, rest = name.partition(".")
        assert package != "lipservice_server", "the SDK never imports the server"
        target = layer_of(rest.split(".")[0]) if package == "lipservice" and rest else None
        if target is not None:
            assert target <= layer_of(own), f"{own} imports {name}, which lies above it"


@pytest.mark.parametrize("path", modules("lipservice"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_third_party_package_is_imported_only_in_its_home(path):
    place = str(path.relative_to(ROOT / "lipservice"))
    for name in imports(path, type_checking=False):
        home = HOMES.get(name.split(".")[0])
        assert home is None or place in home, f"{name} is imported in {place}"


def test_only_the_store_queries():
    """SQL and peewee stay in the server's store, its migrations and its connection."""
    allowed = {"store", "migrations", "db.py", "models.py"}
    for path in modules("lipservice_server"):
        if path.relative_to(ROOT / "lipservice_server").parts[0] in allowed:
            continue
        names = {name.split(".")[0] for name in imports(path, type_checking=False)}
        assert "peewee" not in names, path
