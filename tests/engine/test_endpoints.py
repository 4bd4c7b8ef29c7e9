"""Endpoints against a server on loopback that misbehaves in every way it can, and against local models."""

import json
import logging
import multiprocessing
import os
import random
import signal
import socket
import stat
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alignlab.engine.endpoints import EndpointError, endpoint, of_model
from alignlab.engine.endpoints import cache as cache_module
from alignlab.engine.endpoints.asking import shown, without_secrets
from alignlab.engine.endpoints.cache import AnswerCache, CacheError, key_of
from alignlab.engine.endpoints.retry import pause, retry_after

KEY = "sk-test-0123456789abcdef"
CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is Ada?"})


def completion(text, **choice):
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append({"path": self.path, "body": body, "headers": dict(self.headers)})
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        try:
            self.answer(self.server.script(number, body))
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def answer(self, action):
        status, payload, headers = 200, action, {}
        if isinstance(action, tuple):
            status, payload, headers = (*action, {})[:3]
            headers = dict(headers)
        if callable(payload):
            payload = payload()
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        whole = headers.pop("whole", len(raw))
        self.send_response(status)
        for name, value in {"Content-Length": str(whole), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)
        if whole != len(raw):
            self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serving(script):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.script, server.seen, server.lock, server.busy, server.busiest = script, [], threading.Lock(), 0, 0
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def echo(number, body):
    return completion(f"{body['messages'][-1]['content']}#{body['seed']}")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "default-cache"))


def chat(server, tmp_path, **options):
    options = {"backoff": 0.001, "timeout": 5.0, "retries": 3, "cache_dir": tmp_path / "cache", **options}
    return endpoint("openai:town-model", base_url=server.url, **options)


class TestChat:
    def test_request_and_answer(self, tmp_path):
        with serving(echo) as server:
            asked = chat(server, tmp_path, extra_body={"top_p": 0.5})
            (one,) = asked.complete([CHAT], temperature=0.7, max_tokens=11)
        request = server.seen[0]
        assert request["path"] == "/v1/chat/completions"
        assert request["headers"]["Authorization"] == f"Bearer {KEY}"
        assert request["body"]["messages"] == list(CHAT)
        expected = {"model": "town-model", "temperature": 0.7, "max_tokens": 11, "top_p": 0.5, "stream": False}
        assert {name: request["body"][name] for name in expected} == expected
        assert one[0].text.startswith("Where is Ada?#")
        assert (one[0].stop, one[0].prompt_tokens) == ("stop", 7)
        assert asked.name == "openai:town-model"

    def test_n_draws_are_n_requests_with_their_own_seeds_and_answers_keep_their_order(self, tmp_path):
        def late(number, body):
            time.sleep(random.random() / 50)
            return echo(number, body)

        prompts = [f"question {i}" for i in range(12)]
        with serving(late) as server:
            asked = chat(server, tmp_path, concurrency=4)
            answers = asked.complete(prompts, n=3)
            again = asked.complete(prompts, n=3, seed=1)
        assert len(server.seen) == 2 * 36
        assert all("n" not in request["body"] for request in server.seen)
        assert [[s.text.split("#")[0] for s in row] for row in answers] == [[p] * 3 for p in prompts]
        assert len({s.text for s in answers[0]}) == 3
        assert not {s.text for row in answers for s in row} & {s.text for row in again for s in row}
        assert 1 < server.busiest <= 4

    def test_a_prompt_given_twice_gets_further_draws(self, tmp_path):
        with serving(echo) as server:
            twice = chat(server, tmp_path).complete(["q", "q"], n=2)
            once = chat(server, tmp_path).complete(["q"], n=4)
        assert len({s.text for row in twice for s in row}) == 4
        assert [s.text for s in once[0]] == [s.text for row in twice for s in row]
        assert len(server.seen) == 4

    def test_temperature_zero_is_asked_once(self, tmp_path):
        with serving(echo) as server:
            answers = chat(server, tmp_path).complete(["q", "q"], n=3, temperature=0.0)
        assert len(server.seen) == 1
        assert len({s.text for row in answers for s in row}) == 1

    def test_stop_reasons_and_usage(self, tmp_path):
        reasons = {"a": "length", "b": "content_filter", "c": "stop"}

        def script(number, body):
            return completion("x", finish_reason=reasons[body["messages"][0]["content"]])

        with serving(script) as server:
            asked = chat(server, tmp_path)
            rows = asked.complete(list(reasons))
            assert [row[0].stop for row in rows] == ["length", "error", "stop"]
            assert (asked.usage.answers, asked.usage.prompt_tokens, asked.usage.completion_tokens) == (3, 21, 9)
            asked.complete(list(reasons))
        assert (asked.usage.answers, asked.usage.cached, asked.usage.prompt_tokens) == (3, 3, 21)

    def test_a_server_that_does_not_sample_is_noticed(self, tmp_path, caplog):
        with serving(lambda n, b: completion("always this")) as server:
            chat(server, tmp_path).complete(["a", "b", "c", "d"], n=3)
            assert "extra_body" in caplog.text
            caplog.clear()
            chat(server, tmp_path).complete(["a", "b", "c", "d"], n=3, temperature=0.0)
        with serving(echo) as server:
            chat(server, tmp_path).complete(["a", "b", "c", "d"], n=3)
        assert "extra_body" not in caplog.text

    def test_inside_a_running_event_loop(self, tmp_path):
        import asyncio

        async def inside(asked):
            return asked.complete(["q"])

        with serving(echo) as server:
            assert asyncio.run(inside(chat(server, tmp_path)))[0][0].text.startswith("q#")

    def test_newer_name_of_the_token_limit(self, tmp_path):
        def script(number, body):
            if "max_tokens" in body:
                message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
                return 400, {"error": {"message": message}}
            return completion(str(body["max_completion_tokens"]))

        with serving(script) as server:
            rows = chat(server, tmp_path, retries=0).complete(["a", "b", "c"], max_tokens=9)
        assert [row[0].text for row in rows] == ["9"] * 3


class TestTrouble:
    @pytest.mark.parametrize(
        "trouble",
        [
            (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"}),
            (500, {"error": "boom"}),
            (503, b""),
            (200, b"<html>gateway</html>"),
            (200, b'{"choices": []}'),
            (200, b'{"choices": [{"message": null}]}'),
            (200, b'{"choices": [{"message": {"content": 7}}]}'),
            (200, b"[" * 100_000),
            (200, json.dumps(completion("whole")).encode()[:40], {"whole": 400}),
        ],
        ids=["429", "500", "503", "html", "no choice", "null", "number", "deep", "half a body"],
    )
    def test_passing_trouble_is_asked_again(self, tmp_path, trouble):
        def script(number, body):
            return trouble if number < 2 else completion("fine")

        with serving(script) as server:
            asked = chat(server, tmp_path)
            assert asked.complete(["q"])[0][0].text == "fine"
        assert len(server.seen) == 3
        assert asked.usage.retries == 2

    @pytest.mark.parametrize(
        ("trouble", "says"),
        [
            ((500, {"error": {"message": "boom \x1b[31m"}}), ["HTTP 500", "boom"]),
            ((200, b"garbage"), ["malformed", "garbage"]),
            ((200, b'{"choices"', {"whole": 50}), ["RemoteProtocolError"]),
            ((429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"}), ["HTTP 429", "slow down"]),
        ],
    )
    def test_lasting_trouble_ends_after_the_stated_number_of_attempts(self, tmp_path, trouble, says):
        with serving(lambda n, b: trouble) as server, pytest.raises(EndpointError) as failure:
            chat(server, tmp_path).complete(["q"])
        message = str(failure.value)
        assert len(server.seen) == 4
        assert all(part in message for part in ["openai:town-model", server.url, "gave up after 4 attempts", *says])
        assert "Run again" in message
        assert "\x1b" not in message

    @pytest.mark.parametrize(
        ("status", "says"),
        [(401, "OPENAI_API_KEY"), (404, "/v1"), (400, "prompt too long"), (422, "parameter"), (307, "Redirects")],
    )
    def test_final_refusals_are_reported_at_once(self, tmp_path, status, says):
        script = lambda n, b: (status, {"error": {"message": "server's words"}}, {"Location": "http://127.0.0.1:9/"})  # noqa: E731
        words = f"HTTP {status}: server's words.*{says}"
        with serving(script) as server, pytest.raises(EndpointError, match=words):
            chat(server, tmp_path).complete(["q"])
        assert len(server.seen) == 1

    def test_no_credit_is_final_though_it_comes_as_429(self, tmp_path):
        broke = (429, {"error": {"message": "pay", "code": "insufficient_quota"}})
        with serving(lambda n, b: broke) as server, pytest.raises(EndpointError, match="HTTP 429: pay"):
            chat(server, tmp_path).complete(["q"])
        assert len(server.seen) == 1

    def test_hanging_and_dripping_servers_meet_the_time_limit(self, tmp_path):
        done = threading.Event()

        def hang():
            done.wait(10)
            return b"{}"

        with serving(lambda n, b: (200, hang) if n == 0 else completion("fine")) as server:
            try:
                start = time.monotonic()
                assert chat(server, tmp_path, timeout=0.3).complete(["q"])[0][0].text == "fine"
                assert 0.25 < time.monotonic() - start < 5
            finally:
                done.set()
        drip = socket.create_server(("127.0.0.1", 0))

        def dripping():
            connection, _ = drip.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                try:
                    while not stop.wait(0.02):
                        connection.sendall(b" ")
                except OSError:
                    pass

        stop = threading.Event()
        thread = threading.Thread(target=dripping)
        thread.start()
        try:
            url = f"http://127.0.0.1:{drip.getsockname()[1]}/v1"
            with pytest.raises(EndpointError, match=r"no whole answer within 0.3 s"):
                endpoint("openai:m", base_url=url, timeout=0.3, retries=0, cache_dir=False).complete(["q"])
        finally:
            stop.set()
            thread.join()
            drip.close()

    def test_nobody_there(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        asked = endpoint("openai:m", base_url=url, backoff=0.001, retries=1, cache_dir=tmp_path)
        with pytest.raises(EndpointError, match="ConnectError.*is the server running"):
            asked.complete(["q"])

    def test_what_was_answered_before_a_failure_is_not_asked_again(self, tmp_path):
        broken = True

        def script(number, body):
            bad = broken and body["messages"][0]["content"] == "q5"
            return (400, {"error": {"message": "too long"}}) if bad else echo(number, body)

        prompts = [f"q{i}" for i in range(8)]
        with serving(script) as server:
            with pytest.raises(EndpointError, match="HTTP 400"):
                chat(server, tmp_path, concurrency=1).complete(prompts)
            assert len(server.seen) == 6
            broken = False
            asked = chat(server, tmp_path, concurrency=1)
            rows = asked.complete(prompts)
            assert [row[0].text.split("#")[0] for row in rows] == prompts
        assert len(server.seen) == 6 + 3
        assert asked.usage.cached == 5

    def test_the_first_failure_stops_new_requests_but_keeps_those_under_way(self, tmp_path):
        def script(number, body):
            if body["messages"][0]["content"] == "bad":
                return 401, {"error": {"message": "no"}}
            time.sleep(0.2)
            return echo(number, body)

        with serving(script) as server:
            asked = chat(server, tmp_path, concurrency=2)
            with pytest.raises(EndpointError, match="401"):
                asked.complete(["slow", "bad", *[f"later {i}" for i in range(20)]])
            assert len(server.seen) == 2
            asked.complete(["slow"])
        assert asked.usage.cached == 1

    def test_text_that_no_file_can_hold_is_mended(self, tmp_path):
        body = json.dumps(completion("SURROGATE")).replace("SURROGATE", "a\\ud800b").encode()
        with serving(lambda n, b: (200, body)) as server:
            asked = chat(server, tmp_path)
            text = asked.complete(["q"])[0][0].text
            assert text == asked.complete(["q"])[0][0].text == "a\ufffdb"
        text.encode()

    def test_retry_after_and_pause(self):
        assert retry_after({"retry-after": "2.5"}) == 2.5
        assert retry_after({"retry-after": "soon"}) is None
        assert retry_after({}) is None
        assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
        assert retry_after({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}) > 1e6
        draw = random.Random(0)
        waits = [[pause(a, base=1.0, longest=60.0, said=None, draw=draw) for _ in range(200)] for a in range(8)]
        for attempt, drawn in enumerate(waits[:5]):
            assert 0.5 * 2**attempt <= min(drawn) < max(drawn) < 1.5 * 2**attempt
            assert len(set(drawn)) > 100
        assert max(waits[7]) == 60
        assert pause(0, base=1.0, longest=60.0, said=20.0, draw=draw) == 20
        assert pause(0, base=1.0, longest=60.0, said=1e9, draw=draw) == 60

    def test_retry_after_is_waited_for(self, tmp_path):
        script = lambda n, b: (429, {}, {"Retry-After": "0.4"}) if n == 0 else completion("x")  # noqa: E731
        with serving(script) as server:
            start = time.monotonic()
            chat(server, tmp_path).complete(["q"])
        assert time.monotonic() - start >= 0.4


class TestSecrets:
    def test_the_key_reaches_the_server_and_nothing_else(self, tmp_path, caplog, capfd):
        caplog.set_level(logging.DEBUG)
        said = {"Authorization": f"Bearer {KEY}"}

        def script(number, body):
            question = body["messages"][0]["content"]
            if question == "echo":
                return completion(f"your key is {KEY}")
            if question == "escaped":
                return 200, json.dumps(completion("KEY")).replace("KEY", "\\u0073" + KEY[1:]).encode()
            return {"refused": 401, "garbage": 200}[question], json.dumps({"x": "y" * 280, "saw": said}).encode()

        with serving(script) as server:
            asked = chat(server, tmp_path, retries=1)
            texts = [asked.complete([q])[0][0].text for q in ("echo", "escaped")]
            errors = []
            for question in ("refused", "garbage"):
                with pytest.raises(EndpointError) as failure:
                    asked.complete([question])
                errors.append("".join(map(str, [failure.value, failure.getrepr(showlocals=False)])))
        assert all(request["headers"]["Authorization"].endswith(KEY) for request in server.seen)
        captured = capfd.readouterr()
        places = [*texts, *errors, caplog.text, captured.out, captured.err, repr(asked.source), repr(vars(asked))]
        assert caplog.text
        assert not [place for place in places if KEY in place or KEY[:14] in place]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(path.name == "answers.sqlite" for path in files)
        assert not [path for path in files if KEY.encode() in path.read_bytes()]

    def test_other_secrets_of_the_environment_and_short_values(self, monkeypatch):
        monkeypatch.setenv("TOWN_TOKEN", "very-secret-value")
        monkeypatch.setenv("SMALL_KEY", "a")
        assert without_secrets("say very-secret-value, a cat") == "say [secret], a cat"
        assert shown("x" * 290 + "very-secret-value" + "y" * 50) == "x" * 290 + "[secret]yy..."

    def test_a_missing_or_broken_key_is_named_not_shown(self, monkeypatch, tmp_path):
        monkeypatch.delenv("OPENAI_API_KEY")
        away = endpoint("openai:m", base_url="http://192.0.2.1/v1", cache_dir=tmp_path)
        with pytest.raises(EndpointError, match="set the environment variable OPENAI_API_KEY"):
            away.complete(["q"])
        monkeypatch.setenv("OPENAI_API_KEY", "sk-broken\nline-of-a-key")
        with pytest.raises(EndpointError, match="OPENAI_API_KEY holds characters") as failure:
            away.complete(["q"])
        assert "line-of-a-key" not in str(failure.value)

    def test_a_loopback_server_needs_no_key(self, monkeypatch, tmp_path):
        monkeypatch.delenv("OPENAI_API_KEY")
        with serving(echo) as server:
            chat(server, tmp_path).complete(["q"])
        assert "Authorization" not in server.seen[0]["headers"]

    def test_keys_are_refused_in_specs(self):
        with pytest.raises(EndpointError, match="environment alone"):
            endpoint("openai:m?api_key=sk-1")
        with pytest.raises(EndpointError, match="put the key into OPENAI_API_KEY") as failure:
            endpoint("openai:m", base_url="http://me:hidden@127.0.0.1/v1")
        assert "hidden" not in str(failure.value)


def _put_many(folder, start, barrier):
    cache = AnswerCache(folder)
    barrier.wait()
    for i in range(60):
        from alignlab.core.types import Sample

        cache.put(key_of({"i": i}), Sample(text=f"{start} {i}"))


def _ask_until_killed(url, folder, prompts):
    endpoint("openai:town-model", base_url=url, cache_dir=folder, concurrency=2).complete(prompts)


class TestCache:
    def test_every_part_of_the_question_is_in_the_key(self, tmp_path):
        with serving(echo) as server:
            first = chat(server, tmp_path)
            first.complete(["q"])
            changes = [
                (chat(server, tmp_path), ["q "], {}),
                (chat(server, tmp_path), [({"role": "user", "content": "q"},)], {}),
                (chat(server, tmp_path), ["q"], {"seed": 1}),
                (chat(server, tmp_path), ["q"], {"temperature": 0.5}),
                (chat(server, tmp_path), ["q"], {"max_tokens": 255}),
                (chat(server, tmp_path, extra_body={"top_p": 0.9}), ["q"], {}),
                (endpoint("openai:other", base_url=server.url, cache_dir=tmp_path / "cache"), ["q"], {}),
                (endpoint("openai:town-model", base_url=server.url + "/", cache_dir=tmp_path / "cache"), ["q"], {}),
            ]
            asked = []
            for one, prompts, options in changes:
                before = len(server.seen)
                one.complete(prompts, **options)
                asked.append(len(server.seen) - before)
        assert asked == [1] * 7 + [0]

    def test_files_are_the_owners_alone(self, tmp_path):
        old = os.umask(0)
        try:
            with serving(echo) as server:
                asked = chat(server, tmp_path)
                asked.complete(["q"])
                modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "cache").iterdir()}
        finally:
            os.umask(old)
        assert {"answers.sqlite", "answers.sqlite-wal", "answers.sqlite-shm"} == set(modes)
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700

    def test_two_processes_write_at_once_and_the_first_answer_stays(self, tmp_path):
        fork = multiprocessing.get_context("fork")
        barrier = fork.Barrier(4)
        writers = [fork.Process(target=_put_many, args=(tmp_path / "c", i, barrier)) for i in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert [writer.exitcode for writer in writers] == [0] * 4
        cache = AnswerCache(tmp_path / "c")
        keys = [key_of({"i": i}) for i in range(60)]
        assert sorted(s.text.split()[1] for s in cache.get(keys).values()) == sorted(map(str, range(60)))
        from alignlab.core.types import Sample

        kept = cache.get(keys[:1])[keys[0]]
        assert cache.put(keys[0], Sample(text="too late")) == kept

    def test_kill_9_loses_no_answer_that_was_had(self, tmp_path):
        def slow(number, body):
            time.sleep(0.02)
            return echo(number, body)

        prompts = [f"q{i}" for i in range(40)]
        with serving(slow) as server:
            child = multiprocessing.get_context("fork").Process(
                target=_ask_until_killed, args=(server.url, tmp_path / "cache", prompts)
            )
            child.start()
            while len(server.seen) < 12:
                time.sleep(0.005)
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            time.sleep(0.1)
            before = len(server.seen)
            asked = chat(server, tmp_path)
            rows = asked.complete(prompts)
        assert [row[0].text.split("#")[0] for row in rows] == prompts
        assert before - 2 <= asked.usage.cached + 2
        assert asked.usage.cached >= 8
        assert len(server.seen) - before == 40 - asked.usage.cached

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / "answers.sqlite").write_bytes(b"this is no database at all" * 50)
        with serving(echo) as server, pytest.raises(EndpointError, match=r"answers\.sqlite.*remove the file"):
            endpoint("openai:m", base_url=server.url, cache_dir=tmp_path).complete(["q"])
        with pytest.raises(CacheError):
            AnswerCache(tmp_path).get(["k"])

    def test_a_full_disk_is_named(self, tmp_path):
        from alignlab.core.types import Sample

        cache = AnswerCache(tmp_path)
        with cache._using() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(CacheError, match="full.*free some space"):
            [cache.put(str(i), Sample(text="x" * 4000)) for i in range(20)]
        assert cache.get(["0"])["0"].text == "x" * 4000

    def test_an_edited_row_is_asked_again(self, tmp_path):
        with serving(echo) as server:
            asked = chat(server, tmp_path)
            right = asked.complete(["q"])
            with asked.cache._using() as connection:
                connection.execute("UPDATE answers SET answer = 'nonsense'")
            assert asked.complete(["q"]) == right
            assert asked.complete(["q"]) == right
        assert len(server.seen) == 2

    def test_folders(self, tmp_path, monkeypatch):
        with serving(echo) as server:
            options = {"base_url": server.url}
            endpoint("openai:m", **options).complete(["q"])
            assert (tmp_path / "default-cache" / "answers.sqlite").exists()
            for _ in range(2):
                endpoint("openai:m", cache_dir=False, **options).complete(["q"])
        assert len(server.seen) == 3
        monkeypatch.delenv("ALIGNLAB_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
        assert str(cache_module.default_folder()) == "/somewhere/alignlab"

    def test_keys_take_content_only(self):
        with pytest.raises(TypeError):
            key_of({"steering": object()})


class TestLocal:
    def test_a_loaded_model_is_sampled_cached_and_known_by_its_weights(self, tiny_model, tmp_path, tiny_models):
        prompts = ["Where is Ada?", "Who is Bo?"]
        asked = of_model(tiny_model, cache_dir=tmp_path)
        answers = asked.complete(prompts, n=2, seed=3, max_tokens=5)
        assert answers == tiny_model.sample(prompts, n=2, seed=3, max_tokens=5)
        assert asked.usage.answers == 4
        assert asked.usage.completion_tokens == sum(len(s.ids) for row in answers for s in row)
        again = of_model(tiny_model, cache_dir=tmp_path)
        assert again.complete(prompts, n=2, seed=3, max_tokens=5) == answers
        assert again.usage.cached == 4
        more = again.complete(prompts, n=3, seed=3, max_tokens=5)
        assert [row[:2] for row in more] == answers
        next(tiny_model.module.parameters()).data.mul_(-1)
        assert again.complete(prompts, n=2, seed=3, max_tokens=5) != answers
        assert again.usage.cached == 8

    def test_a_folder(self, tiny_model, tmp_path):
        from alignlab.engine.load import save

        save(tiny_model, tmp_path / "model")
        asked = endpoint(f"hf:{tmp_path}/model?dtype=float32", cache_dir=False)
        assert asked.complete([CHAT], max_tokens=4, temperature=0.0) == tiny_model.sample(
            [CHAT], max_tokens=4, temperature=0.0
        )
        with pytest.raises(EndpointError, match="hf:.*missing"):
            endpoint(f"hf:{tmp_path}/missing", cache_dir=False).complete(["q"])


class TestReplay:
    def test_answers_in_their_order(self, tmp_path):
        file = tmp_path / "answers.jsonl"
        lines = [{"prompt": "q", "completions": ["a", "b"]}, {"prompt": list(CHAT), "completion": "c"}]
        file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"prompt": "q", "completion": "d"}]))
        asked = endpoint(f"replay:{file}")
        texts = [[s.text for s in row] for row in asked.complete(["q", CHAT, "q"])]
        assert texts == [["a"], ["c"], ["b"]]
        user = ({"role": "user", "content": "q"},)
        assert [s.text for s in asked.complete([user], n=3)[0]] == ["a", "b", "d"]
        with pytest.raises(EndpointError, match="3 recorded answers, 4 wanted"):
            asked.complete(["q"], n=4)
        with pytest.raises(EndpointError, match="0 recorded answers.*'unheard'"):
            asked.complete(["unheard"])
        with pytest.raises(EndpointError, match="no such file.*did you mean"):
            endpoint(f"replay:{tmp_path}/answer.jsonl").complete(["q"])


@pytest.fixture
def town():
    """A provider of Inspect AI, registered as outside packages do; yields what it was asked."""
    pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelAPI, ModelOutput, ModelUsage, modelapi

    seen = []

    class Town(ModelAPI):
        async def generate(self, input, tools, tool_choice, config):
            seen.append(([(m.role, m.text) for m in input], config.temperature, config.max_tokens, config.seed))
            if input[-1].text == "break":
                raise RuntimeError(f"refused with {KEY}")
            output = ModelOutput.from_content(self.model_name, f"answer {config.seed}", stop_reason="max_tokens")
            output.usage = ModelUsage(input_tokens=5, output_tokens=2, total_tokens=7)
            return output

    modelapi(name="town")(Town)
    return seen


class TestInspect:
    def test_a_provider(self, town, tmp_path):
        asked = endpoint("town/crier", cache_dir=tmp_path)
        (row,) = asked.complete([CHAT], n=2, temperature=0.25, max_tokens=9)
        assert town[0][0] == [("system", "Be brief."), ("user", "Where is Ada?")]
        assert town[0][1:3] == (0.25, 9)
        assert town[0][3] != town[1][3]
        assert [s.text for s in row] == [f"answer {request[3]}" for request in town]
        assert (row[0].stop, row[0].prompt_tokens, asked.usage.completion_tokens) == ("length", 5, 4)
        again = endpoint("inspect:town/crier", cache_dir=tmp_path)
        assert again.complete([CHAT], n=2, temperature=0.25, max_tokens=9) == [row]
        assert (len(town), again.usage.cached) == (2, 2)
        endpoint("town/other", cache_dir=tmp_path).complete([CHAT], n=2, temperature=0.25, max_tokens=9)
        assert len(town) == 4

    def test_its_failures(self, town, tmp_path):
        asked = endpoint("town/crier", cache_dir=tmp_path, retries=0, concurrency=1)
        with pytest.raises(EndpointError, match="town/crier: RuntimeError: refused with .secret.*run again") as failure:
            asked.complete(["q", "break"])
        assert KEY not in str(failure.value)
        asked.complete(["q"])
        assert asked.usage.cached == 1

    def test_no_such_provider(self):
        pytest.importorskip("inspect_ai")
        with pytest.raises(EndpointError, match="Qwen/Qwen3-0.6B.*write hf:Qwen/Qwen3-0.6B"):
            endpoint("Qwen/Qwen3-0.6B", cache_dir=False).complete(["q"])


class TestSpecs:
    @pytest.mark.parametrize(
        ("spec", "says"),
        [
            ("opnai:m", "did you mean openai:"),
            ("nothing", "write hf:nothing"),
            ("openai:", "nothing after openai:"),
            ("openai:m?timout=3", "did you mean 'timeout'"),
            ("openai:m?timeout=long", "timeout='long'"),
            ("openai:m?base_url=ftp://x", "expected http"),
            ("openai:m?base_url=http://x:99999/v1", "expected http"),
            ("openai:m?concurrency=0", "concurrency >= 1"),
            ("replay:x.jsonl?n=2", "takes no option"),
            ("inspect:model", "<provider>/<model>"),
            ("world:nobody", "nobody"),
        ],
    )
    def test_errors_say_what_to_do(self, spec, says):
        with pytest.raises(EndpointError) as failure:
            endpoint(spec)
        assert says in str(failure.value)

    def test_options_in_the_spec(self):
        source = endpoint(
            "openai:m?base_url=http://127.0.0.1:1/v1/&timeout=3&retries=2&extra_body=%7B%22top_p%22%3A0.5%7D"
        ).source
        assert (source.base_url, source.timeout, source.retries) == ("http://127.0.0.1:1/v1", 3.0, 2)
        assert source.extra_body == {"top_p": 0.5}

    def test_the_environment_gives_the_server(self, monkeypatch):
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:2/v1")
        assert endpoint("openai:m").source.base_url == "http://127.0.0.1:2/v1"
        monkeypatch.delenv("OPENAI_BASE_URL")
        assert endpoint("openai:m").source.base_url == "https://api.openai.com/v1"

    def test_bad_numbers(self, tmp_path):
        asked = endpoint("openai:m", cache_dir=tmp_path)
        for wrong in ({"n": 0}, {"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}):
            with pytest.raises(ValueError, match="out of range"):
                asked.complete(["q"], **wrong)

    def test_progress(self, tmp_path):
        calls = []
        with serving(echo) as server:
            chat(server, tmp_path, progress=lambda had, wanted: calls.append((had, wanted))).complete(["a", "b"], n=2)
        assert sorted(calls) == [(i, 4) for i in range(5)]
