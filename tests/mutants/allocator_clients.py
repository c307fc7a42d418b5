# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501
"""Bugs to plant in the clients of an allocator, and in its example service, and which test has to catch each."""

from __future__ import annotations

from typing import Final

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

CLIENT, MODULES = "plugins/module_utils/client/allocator.py", "plugins/module_utils/verbs/allocator_modules.py"
CLI, SHOWN, STORE = (f"muster/allocator/{name}.py" for name in ("client_cli", "client_completion", "keyvalue"))
VIEW = "plugins/module_utils/decisions/allocator.py"

# what must hold of them
PROPERTIES: Final = {
    "once": "what is asked for is done once, however often it is sent, and nothing is sent twice that may not be",
    "secret": "a token goes to the allocator that is meant, and stands in no message",
    "told": "what is told is what there is, and how it ended",
    "same": "a playbook has what it says, or is told why not; a second run changes nothing, check mode nothing at all",
    "kept": "what the example service answered is on its disk",
}
FILES: Final = {
    "client": "tests/unit/test_allocator_client.py",
    "cli": "tests/unit/test_allocator_cli.py",
    "modules": "tests/unit/test_allocator_modules.py",
    "view": "tests/unit/test_allocator_view.py",
    "key-value": "tests/unit/test_key_value.py",
    "watches": "tests/property/test_allocator_clients_property.py",
    "playbooks": "tests/property/test_allocator_modules_property.py",
}


def planted(name: str, breaks: str, file: str, old: str, new: str, *caught_by: str) -> Mutant:
    """`caught_by` are words of FILES, each perhaps with words of a test's name."""
    return Mutant(name, breaks, file, ((old, new),), caught_by)


MUTANTS: Final = (
    # once
    planted("each try of a creation has a key of its own", "once", CLIENT, '**{"Idempotency-Key": key})', '**{"Idempotency-Key": f"{key}{random.random()}"})', "client its_key_and_no_other"),
    planted("a creation is sent once", "once", CLIENT, "        status, instance = self._patiently(send)\n", "        status, instance = send()\n", "client its_key_and_no_other"),
    planted("a destruction is sent again", "once", CLIENT, 'return self._exchange("DELETE", _path(name) + (f"?storage={storage}" if storage else ""))[1]', 'return self._patiently(lambda: self._exchange("DELETE", _path(name) + (f"?storage={storage}" if storage else "")))[1]', "client sent_twice"),
    planted("a reset is of what there is, not of what was seen", "once", CLI, 'client.reset(args.name, before["resets"])', "client.reset(args.name, 0)", "cli what_was_seen"),
    planted("who interrupts is told another key", "once", CLI, '    again = f"`{args.prog} create --key {_shell(key)}`', '    again = f"`{args.prog} create --key {_shell(uuid.uuid4().hex)}`', "cli ctrl_c"),
    # secret
    planted("the token of a kubeconfig goes anywhere", "secret", CLIENT, "if isinstance(token, KubernetesToken) and not is_private(url, in_pod=token.is_of_pod):", "if False:", "client in_the_clear"),
    planted("a name that begins like an address is this host", "secret", CLIENT, '        return host == "localhost"  #', '        return host == "localhost" or host.startswith("127.")  #', "client of_kubernetes_may_go"),
    planted("a Pod's token goes to any host", "secret", CLIENT, "or (in_pod and is_service", "or (in_pod", "client of_kubernetes_may_go"),
    planted("a password of a URL is shown", "secret", CLIENT, "raise Malformed(where, f\"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}\", \"leave the password out\")", 'raise Malformed(where, text, "leave the password out")', "client no_url"),
    planted("whoever answers is trusted", "secret", CLIENT, "    return Tls(verify=verify,", "    return Tls(verify=False,", "client ca_file"),
    planted("a login without a token goes on without one", "secret", CLIENT, '        if not value or not value.startswith("Bearer "):\n', "        if False:\n", "client login_without_a_token"),
    # told
    planted("what is gone stays in a watch", "told", CLIENT, 'yield Removed(instance) if kind == "DELETED" else Put(instance)', "yield Put(instance)", "client server_is_replaced", "watches"),
    planted("what went while the watch was away stays", "told", CLI, "            instances.clear()\n", "            pass\n", "watches"),
    planted("a watch ends at the next word after its deadline", "told", CLIENT, "timer.start()", "pass", "client at_its_deadline"),
    planted("somebody else's is gone where no watch tells of it", "told", CLIENT, "if found is None and (found := self._look(name)) is not None:", "if False:", "client no_watch_tells_of"),
    planted("whatever is refused is a failure", "told", CLI, "{QuotaSpent: QUOTA, NotThere: NOT_THERE, TimedOut: IN_VAIN, WrongUsage: 2}", "{WrongUsage: 2}", "cli exit_statuses"),
    planted("a phase is that of before the wish", "told", VIEW, 'if int(status.get("resets") or 0) < int(spec.get("resets") or 0):', "if False:", "view"),
    planted("completion asks the allocator of the environment", "told", SHOWN, '&& where+=("$flag" "$value")', "&& :", "cli that_the_line_names"),
    # same
    planted("another owner's instance of the same key is one's own", "same", MODULES, ' and each["owner"] == whose', "", "modules keys_are_of_their_owner"),
    planted("what is there is good enough", "same", MODULES, "        if value != now or type(value) is not type(now):\n", "        if False:\n", "modules not_made_another", "playbooks"),
    planted("check mode makes it", "same", MODULES, "dry_run=check_mode)", "dry_run=False)", "modules check_mode", "playbooks"),
    planted("check mode destroys nothing, and says so", "same", MODULES, "    if check_mode:\n        return before, True\n", "    if check_mode:\n        return before, False\n", "modules check_mode", "playbooks"),
    planted("what is suspended is present", "same", MODULES, '    if after["suspended"] != suspended:\n', '    if after["suspended"] < suspended:\n', "modules suspended_and_back", "playbooks"),
    planted("a failed one is waited for until the end", "same", MODULES, 'if seen["phase"] == FAILED and goal is not None:', "if False:", "modules told_of_a_failure"),
    # kept
    planted("an answer does not wait for the disk", "kept", STORE, '"synchronous = FULL"', '"synchronous = OFF"', "key-value on_the_disk"),
    planted("a value is answered for, and not kept", "kept", STORE, '                self._db.execute("COMMIT")\n', '                self._db.execute("ROLLBACK")\n', "key-value sigkill"),
    planted("SIGTERM ends what was begun", "kept", STORE, "        self._traffic.wait(seconds)\n", "", "key-value sigterm"),
    planted("two processes have the file", "kept", STORE, '"locking_mode = EXCLUSIVE", ', "", "key-value one_process"),
)  # fmt: skip
SUITES: Final = {
    suite: [FILES[(words := suite.split())[0]], *(["-k", words[1]] if len(words) > 1 else [])]
    for mutant in MUTANTS
    for suite in mutant.caught_by
}
