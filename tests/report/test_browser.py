"""The report in a real browser: no console error, no request, no sideways scroll on a phone, marks in every figure."""

import contextlib
import functools
import html as markup
import http.server
import json
import os
import re
import shutil
import subprocess
import threading

import pytest

from alignlab.report.page import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true",
        reason="Chromium is not installed; apt-get install chromium",
    ),
]
WIDTHS = (320, 360, 768, 1280)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--enable-logging=stderr", "--virtual-time-budget=4000",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
PROBE = """<!doctype html><link rel="icon" href="data:,"><body>FRAMES<pre id="found"></pre><script>
const shown = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0; };
const look = frame => {
  const d = frame.contentDocument, root = d.documentElement, width = frame.clientWidth;
  const boxed = e => e.closest('.scroll') && !e.matches('.scroll');
  return {
    width, scroll: root.scrollWidth, body: d.body.scrollWidth, scripts: d.scripts.length, images: d.images.length,
    outside: [...d.body.querySelectorAll('*')].filter(e => !boxed(e) && !e.closest('svg') && shown(e) &&
      e.getBoundingClientRect().right > width + 1).map(e => e.tagName + '.' + e.className).slice(0, 5),
    figures: [...d.querySelectorAll('figure')].map(f => ({ title: f.querySelector('h3').textContent,
      drawings: [...f.querySelectorAll('.plot > svg')].filter(shown).length,
      marks: [...f.querySelectorAll('.plot .dot, .plot .line, .plot .bar, .plot .cell')].filter(shown).length,
      small: Math.min(...[...f.querySelectorAll('.plot text')].filter(shown).map(t =>
        parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width
        / t.ownerSVGElement.viewBox.baseVal.width)) })),
    ground: getComputedStyle(d.body).backgroundColor, owned: frame.contentWindow.owned ?? null,
    heads: [...d.querySelectorAll('h2')].filter(shown).length,
  };
};
addEventListener('load', () => setTimeout(() => {
  const frames = [...document.querySelectorAll('iframe')], closed = frames.map(look);
  frames.forEach(f => f.contentDocument.querySelectorAll('details').forEach(e => { e.open = true; }));
  document.getElementById('found').textContent = JSON.stringify({closed, opened: frames.map(look)});
}, 300));
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.seen.append(self.path)


@contextlib.contextmanager
def served(path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(path)))
    server.seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def visit(text, tmp_path, *flags):
    """Open a page in frames of several widths; return what was measured, console lines and paths asked for."""
    frames = "".join(f'<iframe src="report.html" style="width:{w}px;height:900px;border:0"></iframe>' for w in WIDTHS)
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    (tmp_path / "probe.html").write_text(PROBE.replace("FRAMES", frames), encoding="utf-8")
    with served(tmp_path) as server:
        url = f"http://127.0.0.1:{server.server_port}/probe.html"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    dom, log = done.stdout.decode(), done.stderr.decode(errors="replace")
    found = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
    assert found, f"the probe left nothing; Chromium said: {log[-2000:]}"
    console = [line for line in log.splitlines() if "CONSOLE" in line]
    return json.loads(markup.unescape(found[1])), console, server.seen


@pytest.fixture(scope="module")
def light(example, tmp_path_factory):
    return visit(page(example.run()), tmp_path_factory.mktemp("light"))


def test_console_is_silent_and_nothing_else_is_fetched(light):
    _, console, paths = light
    assert console == []
    assert set(paths) == {"/probe.html", "/report.html"}


@pytest.mark.parametrize("state", ["closed", "opened"])
def test_no_sideways_scroll(light, state):
    for seen in light[0][state]:
        assert seen["scroll"] <= seen["width"], seen
        assert seen["outside"] == [], seen


def test_every_figure_has_marks_at_every_width(light, example):
    for seen in light[0]["closed"]:
        assert len(seen["figures"]) == len(example.figures())
        for figure in seen["figures"]:
            assert figure["drawings"] == 1, figure
            assert figure["marks"] >= 3, figure


def test_text_in_figures_can_be_read_on_a_phone(light):
    for seen in light[0]["closed"]:
        assert min(figure["small"] for figure in seen["figures"]) >= 8.5


def test_hostile_text_did_nothing(light):
    for seen in light[0]["opened"]:
        assert (seen["scripts"], seen["images"], seen["owned"]) == (0, 0, None)
        assert seen["heads"] == 8


def test_dark_is_dark(example, light, tmp_path):
    seen, console, _ = visit(page(example.run()), tmp_path, "--blink-settings=preferredColorScheme=0")
    assert console == []

    def brightness(ground):
        return sum(map(int, re.findall(r"\d+", ground)[:3])) / 3

    assert brightness(seen["closed"][0]["ground"]) < 60
    assert brightness(light[0]["closed"][0]["ground"]) > 200


def test_the_probe_would_notice(tmp_path):
    """The checks above can fail: a wide box, a figure without marks, a script, an error, a request."""
    bad = (
        "<!doctype html><body><h2>x</h2><div class=wide style='width:700px'>wide</div><figure><h3>empty</h3>"
        "<div class=plot><svg width=10 height=10 viewBox='0 0 10 10'></svg></div></figure>"
        "<script>owned = 1; fetch('/elsewhere').then(() => { throw new Error('broken') })</script>"
    )
    seen, console, paths = visit(bad, tmp_path)
    phone = seen["closed"][1]
    assert phone["width"] == 360
    assert phone["scroll"] > 600
    assert phone["outside"] == ["DIV.wide"]
    assert (phone["figures"][0]["marks"], phone["scripts"], phone["owned"]) == (0, 1, 1)
    assert any("broken" in line for line in console)
    assert "/elsewhere" in paths
