"""
What requests may hold and answers do hold: pydantic models, from which the OpenAPI is made.

Requests are read strictly: no conversions, no unknown fields, bounds on every number and text, no
NUL. A report's patterns are typed dictionaries, because a thousand of them a request are read.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from typing_extensions import TypedDict

Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
_Text = r"^[^\x00-\x1f\x7f]*$"
ServiceName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$",
    ),
]
Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$"),
]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:@/-]{1,100}$")]
Template = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Bytes = Annotated[int, Field(ge=0, le=10**15)]
SeverityName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,20}$")]
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x20\x7f]+$")
]
Provider = Literal["builtin", "openai", "anthropic"]
Mode = Literal["active", "shadow"]


def _within_years(moment: datetime) -> datetime:
    # The ends of datetime's range overflow as soon as a time zone is applied.
    if not 1970 <= moment.year <= 9000:
        raise ValueError("a year between 1970 and 9000")
    return moment


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a time in ISO 8601, as text")
    return value


Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_is_text, json_schema_input_type=str),
    AfterValidator(_within_years),
    Field(json_schema_extra={"type": "string", "format": "date-time"}),
]
_EARLIEST = datetime(1970, 1, 2, tzinfo=timezone.utc)
_LATEST = datetime(9000, 1, 1, tzinfo=timezone.utc)
# For the patterns of a report, where a Python call for each would double the time of reading.
FastMoment = Annotated[AwareDatetime, Field(ge=_EARLIEST, le=_LATEST, strict=True)]


class Strict(BaseModel):
    """Base of what requests hold."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """Base of what answers hold; what a row has beyond it is left out."""

    model_config = ConfigDict(extra="ignore")


# -- reports --------------------------------------------------------------------------------------

_TYPED = ConfigDict(strict=True, extra="forbid")


class _NeededOfPattern(TypedDict):
    signature: Signature
    count: Count
    last_seen: FastMoment
    sampling_rate: Rate


class ReportedPattern(_NeededOfPattern, total=False):
    """Counts of one pattern since the instance's last report."""

    __pydantic_config__ = _TYPED  # type: ignore[misc]  # how pydantic configures a typed dictionary

    template: Template
    kept: Count
    bytes: Bytes
    severity_distribution: Annotated[dict[SeverityName, Count], Field(max_length=16)]
    first_seen: FastMoment


class Sdk(TypedDict, total=False):
    """Which SDK reports."""

    __pydantic_config__ = _TYPED  # type: ignore[misc]

    language: Annotated[str, StringConstraints(max_length=40, pattern=_Text)]
    version: Annotated[str, StringConstraints(max_length=40, pattern=_Text)]


HealthValue = (
    Annotated[int, Field(ge=-(2**53), le=2**53)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | bool
    | Annotated[str, StringConstraints(max_length=200, pattern=_Text)]
    | None
)


class _NeededOfReport(TypedDict):
    patterns: Annotated[list[ReportedPattern], Field(max_length=1000)]


class Report(_NeededOfReport, total=False):
    """One upload of counts from one instance."""

    __pydantic_config__ = _TYPED  # type: ignore[misc]

    report_id: Identifier
    service_name: ServiceName
    instance_id: Identifier
    interval: Annotated[float, Field(ge=0, le=86_400 * 30, allow_inf_nan=False)]
    sdk: Sdk
    health: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,60}$")], HealthValue],
        Field(max_length=60),
    ]


class Reported(Answer):
    """A report was counted, now or before."""

    status: Literal["success"] = "success"
    patterns_processed: int
    #: Only there where a report of this id was counted before.
    duplicate: bool | None = None


# -- policies -------------------------------------------------------------------------------------


class PolicyDocument(Answer):
    """The policy document (docs/reference/policy.md)."""

    policy_id: str
    sampling_rate: float
    patterns: list[str]
    max_logs_per_minute: int | None
    severity_rates: dict[str, float]
    version: int | None = None
    pattern_rates: dict[str, float] = {}
    anomaly_boost: float | None = None
    keep_first: int | None = None
    mode: Mode = "active"
    protected: list[str] = []
    reasoning: str = ""
    generated_by: str = ""
    created_at: str | None = None


class ServedBoost(Answer):
    """Kept whole until a time (UTC, whole seconds); all three selectors null: the whole service."""

    signature: str | None
    severity: str | None
    logger: str | None
    until: str


class ActivePolicy(PolicyDocument):
    """The policy document as it is served, with what is kept whole for a while."""

    boosts: list[ServedBoost] = []


class ActiveQuery(Strict):
    """Whose policy."""

    service_name: ServiceName | None = None
    instance_id: Identifier | None = None


class ServiceQuery(Strict):
    """Which service; a key that belongs to one need not say."""

    service_name: ServiceName | None = None


class GivenPattern(Strict):
    """A pattern to generate from; what is not given is taken from the reports."""

    signature: Signature
    count: Count
    frequency: Annotated[float, Field(ge=0, le=1)] | None = None
    template: Template | None = None
    severity: SeverityName | None = None
    bytes: Bytes | None = None


class Generate(Strict):
    """What to generate from; with no patterns, the service's reports."""

    service_name: ServiceName | None = None
    patterns: Annotated[list[GivenPattern], Field(max_length=10_000)] | None = None
    cost_target: Annotated[float, Field(gt=0, le=1)] | None = None
    llm_provider: Provider | None = None
    #: Whether the new version becomes the active one at once; absent: as the service is set.
    activate: bool | None = None


class Generated(PolicyDocument):
    """The policy that was made."""

    cost_reduction: float
    state: Literal["draft", "active"]
    llm_provider: Provider
    #: Why another provider was used than the one asked for.
    fallback_reason: str | None = None


class DraftPolicy(Strict):
    """A policy written by hand."""

    sampling_rate: Rate
    patterns: Annotated[list[Word], Field(max_length=1_000)] = []
    severity_rates: Annotated[dict[SeverityName, Rate], Field(max_length=16)] = {}
    pattern_rates: Annotated[dict[Signature, Rate], Field(max_length=20_000)] = {}
    anomaly_boost: Annotated[float, Field(ge=1, le=1_000_000)] = 5.0
    keep_first: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    reasoning: Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[^\x00]*$")] = ""
    activate: bool = False


class PolicyLine(Answer):
    """One version in the history."""

    version: int
    policy_id: str
    state: Literal["draft", "active", "superseded", "rejected"]
    generated_by: str
    created_at: datetime
    created_by: str
    activated_at: datetime | None
    cost_target: float | None
    cost_reduction: float | None


class PolicyVersion(PolicyLine):
    """One version with its document."""

    document: PolicyDocument
    details: dict[str, Any]


class PolicyHistory(Answer):
    """Versions, the newest first."""

    policies: list[PolicyLine]
    active_version: int | None


class HistoryQuery(ServiceQuery):
    """A page of the history."""

    before: Annotated[int, Field(ge=1, le=2**53)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class DiffQuery(ServiceQuery):
    """Which two versions."""

    from_version: Annotated[int, Field(ge=1, le=2**53)]
    to_version: Annotated[int, Field(ge=1, le=2**53)]


class RateChange(Answer):
    """A rate in the one version and in the other; null: not said there."""

    name: str
    before: float | None
    after: float | None


class PolicyDiff(Answer):
    """What differs between two versions."""

    from_version: int
    to_version: int
    fields: list[dict[str, Any]]
    severity_rates: list[RateChange]
    pattern_rates: list[RateChange]
    words_added: list[str]
    words_removed: list[str]


# -- patterns -------------------------------------------------------------------------------------


class PatternsQuery(ServiceQuery):
    """A page of patterns."""

    search: Annotated[str, StringConstraints(max_length=200, pattern=_Text)] = ""
    severity: Literal["", "TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = ""
    pinned: bool | None = None
    sort: Literal[
        "count", "kept", "bytes", "rate", "errors", "first_seen", "last_seen", "template",
        "severity", "signature",
    ] = "count"  # fmt: skip
    order: Literal["asc", "desc"] = "desc"
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0


class PatternLine(Answer):
    """A pattern with its counts since it was first seen."""

    signature: str
    template: str
    severity: str
    first_seen: datetime
    last_seen: datetime
    count: int
    kept: int
    bytes: int
    kept_bytes: int
    errors: int
    mean_bytes: float | None
    #: The rate in force at the last report, and its weight (1/rate).
    rate: float
    weight: float | None
    pinned_rate: float | None
    protected: bool
    pin_reason: str | None
    pinned_by: str | None


class PatternPage(Answer):
    """One page, and how many patterns there are in all."""

    patterns: list[PatternLine]
    total: int


class VolumeQuery(ServiceQuery):
    """Which time, in which steps."""

    step: Literal["hour", "day"] = "hour"
    periods: Annotated[int, Field(ge=1, le=366)] = 24


class VolumePoint(Answer):
    """Counts of one hour or day."""

    start: datetime
    count: int
    kept: int
    bytes: int
    errors: int


class Volume(Answer):
    """A pattern's volume over time, the oldest first."""

    signature: str
    step: Literal["hour", "day"]
    points: list[VolumePoint]


class RisingPattern(Answer):
    """A pattern whose volume has jumped."""

    signature: str
    template: str
    severity: str
    first_seen: datetime
    #: Records a day lately, and in the week before.
    today: float
    before: float
    factor: float


class Rising(Answer):
    """Patterns whose volume has jumped, the steepest first."""

    patterns: list[RisingPattern]


class RisingQuery(ServiceQuery):
    """How many to name."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    least: Annotated[int, Field(ge=1, le=10**12)] = 100


class Pin(Strict):
    """A decision by hand: a rate, or protection (which is the rate 1)."""

    rate: Rate | None = None
    protected: bool = False
    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] = ""


class PinLine(Answer):
    """A decision by hand."""

    signature: str
    rate: float
    protected: bool
    reason: str
    created_at: datetime
    created_by: str


class Pins(Answer):
    """Decisions by hand, the newest first."""

    pins: list[PinLine]


# -- boosts ---------------------------------------------------------------------------------------


class NewBoost(Strict):
    """What to keep whole, and for how long; with no selector, the whole service."""

    service_name: ServiceName | None = None
    #: A signature (16 hex digits), a message, or a template that was reported.
    pattern: (
        Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
        | None
    ) = None
    severity: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = None
    #: Its children are meant with it.
    logger: (
        Annotated[
            str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
        ]
        | None
    ) = None
    minutes: Annotated[float, Field(gt=0, le=1440)] = 10.0
    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] = ""


class BoostLine(Answer):
    """A boost that runs or has ended."""

    id: int
    service_name: str
    signature: str | None
    severity: str | None
    logger: str | None
    #: Of the signature; null: no instance has reported it.
    template: str | None
    #: As they were asked for.
    minutes: float
    reason: str
    created_at: datetime
    created_by: str
    #: When it ends, or has ended.
    until: datetime
    #: Who ended it early; null: nobody did.
    ended_by: str | None


class Boosts(Answer):
    """Boosts, the newest first."""

    boosts: list[BoostLine]


class BoostsQuery(ServiceQuery):
    """A page of those that run, or of those that have ended."""

    ended: bool = False
    before: Annotated[int, Field(ge=1, le=2**53)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


# -- services, instances, savings -----------------------------------------------------------------


class ServiceLine(Answer):
    """A service and how it is treated."""

    name: str
    created_at: datetime
    last_report_at: datetime | None
    records: int
    cost_target: float | None
    max_logs_per_minute: int | None
    llm_provider: str | None
    mode: Mode
    auto_generate: bool
    auto_apply: bool
    words: list[str]
    active_version: int | None
    last_version: int
    generated_at: datetime | None


class Services(Answer):
    """The team's services, by name."""

    services: list[ServiceLine]


class ServiceChange(Strict):
    """Settings to change; what is absent stays, null goes back to the server's default."""

    cost_target: Annotated[float, Field(gt=0, le=1)] | None = None
    max_logs_per_minute: Annotated[int, Field(ge=0, le=10**9)] | None = None
    llm_provider: Provider | None = None
    mode: Mode = "active"
    auto_generate: bool = True
    auto_apply: bool = True
    words: Annotated[list[Word], Field(max_length=200)] = []


class InstancesQuery(ServiceQuery):
    """A page of instances."""

    live: bool = False
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0


class InstanceLine(Answer):
    """A process that reports."""

    instance_id: str
    first_seen: datetime
    last_seen: datetime
    live: bool
    sdk_language: str
    sdk_version: str
    reports: int
    records: int
    kept: int
    records_per_minute: float
    #: Its share of the fleet's max_logs_per_minute; null: the service has no limit.
    share: int | None
    health: dict[str, Any]


class InstancePage(Answer):
    """One page, and how many instances there are in all."""

    instances: list[InstanceLine]
    total: int


class SavingsQuery(Strict):
    """Which time; with no service, all of the team's."""

    service_name: ServiceName | None = None
    days: Annotated[int, Field(ge=1, le=366)] = 30
    step: Literal["hour", "day"] = "day"


class SavingsPoint(Answer):
    """Sums of one hour or day."""

    start: datetime
    records: int
    kept: int
    bytes: int
    kept_bytes: int
    errors: int
    reports: int


class SavingsAnswer(Answer):
    """What was seen, kept and saved."""

    service_name: str | None
    records: int
    kept: int
    bytes: int
    kept_bytes: int
    errors: int
    #: Bytes that were not kept, and what they would have cost.
    saved_bytes: int
    saved_money: float
    price_per_gb: float
    points: list[SavingsPoint]


# -- teams, keys, audit ---------------------------------------------------------------------------


class TeamAnswer(Answer):
    """The key's team."""

    name: str
    created_at: datetime
    price_per_gb: float
    llm_daily_calls: int
    llm_daily_tokens: int
    llm_calls_today: int
    llm_tokens_today: int


class TeamChange(Strict):
    """Settings to change; what is absent stays, null goes back to the server's default."""

    price_per_gb: Annotated[float, Field(ge=0, le=10**6)] | None = None
    llm_daily_calls: Annotated[int, Field(ge=0, le=10**9)] | None = None
    llm_daily_tokens: Annotated[int, Field(ge=0, le=10**12)] | None = None


class NewKey(Strict):
    """A key to make."""

    name: Label
    scopes: Annotated[list[Literal["ingest", "read", "admin"]], Field(min_length=1, max_length=3)]
    service_name: ServiceName | None = None
    expires_at: Moment | None = None


class KeyLine(Answer):
    """A key, without itself."""

    id: int
    name: str
    prefix: str
    scopes: list[str]
    service_name: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: int | None


class Keys(Answer):
    """The team's keys, the newest first."""

    keys: list[KeyLine]


class MadeKey(KeyLine):
    """A new key. It is shown here and never again."""

    key: str


class Rotation(Strict):
    """How long the old key works beside the new one; absent: as the server is set."""

    overlap_seconds: Annotated[int, Field(ge=0, le=365 * 86_400)] | None = None


class Token(Answer):
    """A short-lived token for the key that asked."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  a name, not a secret
    expires_in: int
    scope: str


class AuditQuery(Strict):
    """A page of the log."""

    before: Annotated[int, Field(ge=1, le=2**62)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    action: Annotated[str, StringConstraints(pattern=r"^[a-z.]{0,40}$")] = ""


class AuditLine(Answer):
    """Who did what to what."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    detail: dict[str, Any]


class AuditPage(Answer):
    """Lines of the log, the newest first."""

    lines: list[AuditLine]


# -- state and errors -----------------------------------------------------------------------------


class Health(Answer):
    """Whether the process, or the whole server, is well."""

    status: Literal["ok", "away"]


class Empty(Answer):
    """Nothing to say."""


class ErrorDetail(Answer):
    """One wrong field."""

    field: str
    problem: str


class ErrorBody(Answer):
    """What is wrong."""

    code: str
    message: str
    details: list[ErrorDetail] = []


class ErrorAnswer(Answer):
    """Every answer of status 400 and above."""

    error: ErrorBody
