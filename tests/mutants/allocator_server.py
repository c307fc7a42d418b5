# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501
"""Bugs to plant in the allocator's server, each a mistake that a hurried change makes, and which test has to catch it."""

from __future__ import annotations

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

HERE = "muster/allocator"
HTTP, CONNECTIONS, STRICT = (f"muster/http/{name}.py" for name in ("wire", "connections", "strict_json"))
AUTH, WIRE, WATCH, ROUTES = (f"{HERE}/{name}.py" for name in ("auth", "server_wire", "server_watch", "server_routes"))
SERVER, STREAM, PROBLEMS = (f"{HERE}/{name}.py" for name in ("server", "server_stream", "server_problems"))
POOL = f"{HERE}/server_pool.py"

# what must hold of the server
PROPERTIES = {
    "A4": "B never sees, destroys or guesses A's instance",
    "A6": "tokens of another audience, expired or revoked ones are refused; none is ever logged",
    "A7": "oversized, deeply nested and compressed bodies are refused, and nothing grows without bound",
    "open": "nobody is let in because something is broken",
    "strict": "what can be read in two ways is not read",
    "browser": "a page of somebody else can't use this one",
}
FILES = {
    "server": "tests/unit/test_allocator_server.py",
    "watch": "tests/unit/test_allocator_server_watch.py",
    "auth": "tests/unit/test_allocator_server_auth.py",
}


def planted(name: str, breaks: str, file: str, old: str, new: str, caught_by: str) -> Mutant:
    """`caught_by` is one of FILES, and words of the test's name."""
    return Mutant(name, breaks, file, ((old, new),), (caught_by,))


MUTANTS = (
    # what is another's
    planted("a watch tells everybody", "A4", WATCH, "return decisions.may_see(offer, watcher.caller, state.instance)", "return True", "watch first_what_there_is"),
    planted("what is taken back is told as it is now", "A4", WATCH, "watcher.tell(event(DELETED, before.view))", "watcher.tell(event(DELETED, (after or before).view))", "watch taken_back"),
    planted("what is taken back stays", "A4", WATCH, "            if not sees:\n", "            if after is None:\n", "watch taken_back"),
    planted("groups are those of the beginning", "A4", WATCH, "        if caller == watcher.caller:\n", "        if True:\n", "watch leaves_a_group"),
    planted("who is no administrator any more watches on", "A4", STREAM, "if watcher.is_everything and not self._offer.is_administrator(caller):", "if False:", "watch administrator_any_more"),
    planted("everybody may watch everything", "A4", ROUTES, "if everything and not asked.allocator.offer.is_administrator(asked.caller):", "if False:", "server everybodys"),
    planted("an administrator watches everything without asking", "A4", WATCH, "offer = self._offer if watcher.is_everything else self._of_nobody", "offer = self._offer", "watch if_they_ask"),
    planted("another of the same name is the same", "A4", WATCH, "if before and after and before.uid != after.uid:", "if False:", "watch same_name"),
    # tokens
    planted("any audience will do", "A6", AUTH, 'elif self._audience and self._audience not in (status.get("audiences") or []):', "elif False:", "auth only_what_is_said"),
    planted("nearly authenticated is enough", "A6", AUTH, 'status.get("authenticated") is not True', 'not status.get("authenticated")', "auth only_what_is_said"),
    planted("a review holds for ever", "A6", AUTH, "if self._clock() < review.until:", "if True:", "auth no_longer"),
    planted("seconds count from the answer", "A6", AUTH, "self._read(self._send(token), began)", "self._read(self._send(token), self._clock())", "auth from_when_it_was_asked"),
    planted("a watch outlives its token", "A6", STREAM, "                await self._review(watcher, token)\n", "", "watch revoked"),
    planted("tokens are kept as they are", "A6", AUTH, 'hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()', "token.encode()", "auth kept_logged_or_said"),
    planted("why it failed is logged word for word", "A6", AUTH, '{"error": type(error).__name__,', '{"error": str(error),', "auth kept_logged_or_said"),
    planted("what is no HTTP is logged", "A6", CONNECTIONS, "        answer = self._connections.profile.refusal(_problem(exc))\n", '        say(logging.WARNING, "no HTTP", error=repr(exc.args if exc else message), words=str(exc))\n        answer = self._connections.profile.refusal(_problem(exc))\n', "server logged_without_it"),
    planted("the query is logged", "A6", SERVER, '"client": request.remote}\n        try:', '"client": request.remote, "path": request.path_qs}\n        try:', "server one_line_a_request"),
    planted("the first of two tokens counts", "A6", AUTH, "if len(headers) > 1 or scheme", "if scheme", "auth no_bearer_token"),
    # when something is broken
    planted("when nobody can be asked anybody is let in", "open", AUTH, '            raise NotReviewed("the API server can\'t be asked whom the token stands for") from None', '            return {"authenticated": True, "audiences": [self._audience], "user": {"username": "somebody"}}', "auth can_not_be_asked"),
    planted("a watch of whom nobody knows goes on", "open", STREAM, "            watcher.finish(problem_of(error))", "            pass", "watch nobody_can_say"),
    planted("what is wrong with a ledger is told to anybody", "open", PROBLEMS, "case Malformed() if not error.field.startswith(ledger.KEY):", "case Malformed():", "server none_of_their_business"),
    # bounds
    planted("chunks have no bound", "A7", HTTP, "if len(content) > most:", "if len(content) > 10**9:", "server chunks_has"),
    planted("depth is the parser's", "A7", STRICT, "if depth > MAX_DEPTH:", "if depth > 10**9:", "server by_the_letter"),
    planted("a string without an end is looked for again and again", "A7", STRICT, '*+"?|', '*"|', "server by_the_letter"),
    planted("brackets in strings are depth", "A7", STRICT, """r'"(?:[^"\\\\]|\\\\.)*+"?|[\\[\\]{}]'""", "r'[\\[\\]{}]'", "server brackets_in_strings"),
    planted("what is compressed is not looked for", "A7", WIRE, 'if request.headers.get("Content-Encoding", "identity").lower() != "identity" and', "if False and", "server compressed"),
    planted("any number of calls may wait", "A7", POOL, "self.calls >= self._limit", "False", "server more_than_may_wait"),
    planted("a place is free when nobody waits", "A7", SERVER, "return await asyncio.wrap_future(self._calls.submit(what))", "future = self._calls.submit(what)\n        self._calls.calls -= 1\n        return await asyncio.wrap_future(future)", "server place_is_taken"),
    planted("any number of connections", "A7", CONNECTIONS, "if self._connections.open >= self._connections.profile.connections:", "if False:", "server no_more_connections"),
    planted("a watcher may be behind for ever", "A7", WATCH, "if len(self._lines) >= QUEUED:", "if False:", "watch behind_is_bounded"),
    planted("any number of watches", "A7", WATCH, "if same >= WATCHERS_PER_CALLER:", "if False:", "watch without_end"),
    planted("any number of tokens is kept", "A7", AUTH, "while len(kept) > bound:", "while False:", "auth is_bounded"),
    planted("each asks for itself", "A7", AUTH, "            asked = self._asking.get(digest)\n", "            asked = None\n", "auth same_time"),
    # read in one way only
    planted("the last of two keys counts", "strict", STRICT, "        if key in found:\n            raise NotJson(f\"the body has", "        if False:\n            raise NotJson(f\"the body has", "server by_the_letter"),
    planted("NaN is a number", "strict", STRICT, "    if not math.isfinite(number):\n", "    if False:\n", "server by_the_letter"),
    planted("one of two values in the URL counts", "strict", HTTP, "        if name in found:\n", "        if False:\n", "server what_can_not_be"),
    planted("an unknown value in the URL is ignored", "strict", HTTP, "        if name not in names:\n", "        if name not in names:\n            continue\n        if False:\n", "server what_can_not_be"),
    planted("one of two idempotency keys counts", "strict", ROUTES, "if len(keys) != 1:", "if not keys:", "server has_one_key"),
    # browsers
    planted("browsers guess what a page is", "browser", HTTP, '    "X-Content-Type-Options": "nosniff",\n', "", "server browsers_safe"),
    planted("anybody may frame the page", "browser", WIRE, "frame-ancestors 'none'; ", "", "server browsers_safe"),
    planted("answers are kept", "browser", HTTP, '    "Cache-Control": "no-store",\n', "", "server browsers_safe"),
)  # fmt: skip


def suite_of(words: str) -> list[str]:
    """The pytest arguments for `FILE WORDS`."""
    file, test = words.split()
    return [FILES[file], "-k", test]


SUITES = {words: suite_of(words) for mutant in MUTANTS for words in mutant.caught_by}
