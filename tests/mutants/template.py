# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501
"""Bugs to plant in the allocator's templates, each a mistake that a hurried change makes, and who has to catch it."""

from __future__ import annotations

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

DECISIONS = "plugins/module_utils/decisions"
TEMPLATE, PARAMETERS = f"{DECISIONS}/template.py", f"{DECISIONS}/template_parameters.py"
PATTERN, POLICY = f"{DECISIONS}/template_pattern.py", f"{DECISIONS}/template_policy.py"
IMPORT, DOCUMENTS = f"{DECISIONS}/template_import.py", "plugins/module_utils/documents.py"

# what must hold of templates
PROPERTIES = {
    "A5": "a value stays a value: the tree keeps its shape, and a program gets the value as it was given",
    "owner": "whose the objects are is what the server says, and they touch nobody else's",
    "bounds": "what is read and rendered is bounded, and so is the time for it",
    "policy": "nothing is made that is not permitted",
    "import": "nothing is guessed, and nothing is changed without a note",
}

UNIT, SCHEMA, RULES, OLD, YAML, PROPERTY = (
    f"template {each}" for each in ("unit", "parameters", "policy", "import", "documents", "property")
)
SUITES = {
    UNIT: ["tests/unit/test_template.py"],
    SCHEMA: ["tests/unit/test_template_parameters.py"],
    RULES: ["tests/unit/test_template_policy.py"],
    OLD: ["tests/unit/test_template_import.py"],
    YAML: ["tests/unit/test_documents.py"],
    PROPERTY: ["tests/property/test_template_property.py"],
}


def planted(name: str, breaks: str, file: str, old: str, new: str, *caught_by: str) -> Mutant:
    return Mutant(name, breaks, file, ((old, new),), caught_by)


MUTANTS = (
    # rendering
    planted("keys are filled, too", "A5", TEMPLATE, '    if "{{" in key:\n', "    if False:\n", UNIT),
    planted(
        "what was put in is looked at again",
        "A5",
        TEMPLATE,
        'return "".join(_escaped(parts) if is_expanded(path) else parts)',
        'done = "".join(_escaped(parts) if is_expanded(path) else parts)\n        return done if done == text or "{{.Name}}" not in done else self._filled(done, path)',
        UNIT,
    ),
    Mutant(
        "a value that is JSON becomes structure",
        "A5",
        TEMPLATE,
        (
            ('return self._filled(value, path) if isinstance(value, str) and "{{" in value else value', 'return _guessed(self._filled(value, path)) if isinstance(value, str) and "{{" in value else value'),
            ("class _Writer:\n", 'def _guessed(value: Any) -> Any:\n    try:\n        return json.loads(value) if str(value)[:1] in "[{" else value\n    except ValueError:\n        return value\n\n\nclass _Writer:\n'),
        ),
        (UNIT,),
    ),
    planted("a value's $ is not doubled", "A5", TEMPLATE, 'yield part.replace("$", "$$")', "yield part", UNIT, PROPERTY),
    planted(
        "a $ before a value begins a variable",
        "A5",
        TEMPLATE,
        'yield part + "$" if dollars % 2 and number < len(parts) - 1 else part',
        "yield part",
        UNIT,
        PROPERTY,
    ),
    planted("a placeholder names a variable", "A5", TEMPLATE, "any(map(_opens_variable, literals))", "False", UNIT),
    planted("numbers stand where text has to", "A5", TEMPLATE, ", str) and not is_text(path):", ", str):", UNIT, PROPERTY),
    planted("a number becomes text everywhere", "A5", TEMPLATE, "if alone and alone[1] and not", "if alone and not alone[1] and not", UNIT, PROPERTY),
    planted(
        "JSON is made without an encoder",
        "A5",
        TEMPLATE,
        'text = json.dumps({"In": users, "Groups": sorted(set(access.groups))}, separators=(",", ":"))',
        'text = \'{"In":["\' + \'","\'.join(users) + \'"],"Groups":["\' + \'","\'.join(access.groups) + \'"]}\'',
        UNIT,
        PROPERTY,
    ),
    planted("an unknown placeholder stays as it is", "A5", TEMPLATE, "if name not in BUILT_IN and name not in parameters:", "if False:", UNIT),
    planted("NUL is put in", "A5", PARAMETERS, '    if "\\0" in text:\n', "    if False:\n", UNIT, SCHEMA),
    planted("half a pair is put in", "A5", PARAMETERS, "    if _SURROGATE.search(text):\n", "    if False:\n", UNIT, SCHEMA),
    planted("4 KiB are counted in characters", "bounds", PARAMETERS, "if len(text.encode()) > limit:", "if len(text) > limit:", UNIT, SCHEMA),
    planted("a boolean is a number", "A5", PARAMETERS, "if not isinstance(value, bool):\n            return check_whole", "if True:\n            return check_whole", SCHEMA, PROPERTY),
    planted("an unknown parameter is ignored", "A5", PARAMETERS, "        if name not in parameters:\n", "        if False:\n", UNIT, SCHEMA),
    planted(
        "an unknown keyword is ignored",
        "A5",
        PARAMETERS,
        "        if keyword not in KEYWORDS:\n",
        "        if keyword not in KEYWORDS:\n            continue\n        if False:\n",
        SCHEMA,
    ),
    planted("a default need not fit", "A5", PARAMETERS, 'default=check_value(parameter, schema["default"], f"{where}.default")', 'default=schema["default"]', SCHEMA, PROPERTY),
    planted("a maximum is not reached", "A5", PARAMETERS, "checked > parameter.maximum", "checked >= parameter.maximum", SCHEMA, PROPERTY),
    planted("$ is also before a last newline", "A5", PATTERN, "is_start=False, is_end=place == last", 'is_start=False, is_end=value[place + 1 :] in ("", "\\n")', SCHEMA),
    planted("a match begins at the beginning only", "A5", PATTERN, "moved = {0}", "moved: set[int] = set()", SCHEMA, PROPERTY),
    planted("a class is not negated", "A5", PATTERN, "!= self.is_negated", "!= False", SCHEMA, PROPERTY),
    # bounds
    planted("the size has no bound", "bounds", TEMPLATE, "    if size > MAX_BYTES:\n", "    if False:\n", UNIT),
    planted("what is put in has no bound", "bounds", TEMPLATE, "        if self._left < 0:\n", "        if False:\n", UNIT),
    planted("sets of states are forgotten", "bounds", PATTERN, "known[reached, kind] = after", "pass", SCHEMA),
    planted("counts are written out however many", "bounds", PATTERN, "if _size(node) > MAX_STATES:", "if False:", SCHEMA),
    planted("an alias is not as deep as what it stands for", "bounds", DOCUMENTS, "len(self._open) + size.height, size.nodes", "len(self._open) + 1, size.nodes", YAML),
    planted("JSON has no depth", "bounds", DOCUMENTS, "        if depth > MAX_DEPTH:\n            raise Malformed(", "        if depth > 10**9:\n            raise Malformed(", YAML),
    planted("the last of two keys counts", "bounds", DOCUMENTS, "        if text in inner.keys:\n", "        if False:\n", YAML),
    # whose they are
    planted("a template says whose its objects are", "owner", TEMPLATE, 'if obj["metadata"].get(key) is not None:', "if False:", UNIT),
    planted("a template has the server's labels", "owner", TEMPLATE, "                if key in there:\n", "                if False:\n", UNIT),
    planted("what an object said stays", "owner", TEMPLATE, 'for key, of in obj["metadata"].items() if key not in RESERVED}', 'for key, of in obj["metadata"].items()}', UNIT),
    planted("the object's namespace counts", "owner", TEMPLATE, '{**metadata, "namespace": namespace}', '{**metadata, "namespace": obj["metadata"].get("namespace") or namespace}', UNIT),
    planted("the object's labels count", "owner", TEMPLATE, "    there |= marks\n", "    there |= {key: of for key, of in marks.items() if key not in there}\n", UNIT),
    planted("selectors select the Pods of others", "owner", TEMPLATE, "        _narrow(obj, handle)\n", "", UNIT),
    planted("a name that only begins like the handle", "owner", TEMPLATE, 'not name.startswith(f"{handle}-")', "not name.startswith(handle)", UNIT),
    planted("any name will do", "owner", TEMPLATE, "    if not begins_with_name(name):\n        remedy", "    if False:\n        remedy", UNIT),
    planted("two objects become one", "owner", TEMPLATE, "    _check_twice(owned, handle)\n", "", UNIT),
    planted("where it is published depends on nobody", "owner", TEMPLATE, 'frozenset({"AccessList", "MountName", ', 'frozenset({"AccessList", ', UNIT),
    planted("nobody has to choose", "owner", TEMPLATE, "return bool(template.parameters) or not used", "return not used", UNIT),
    planted("parameters are no part of the digest", "owner", TEMPLATE, "json.dumps([spec, objects]", "json.dumps([{}, objects]", UNIT),
    # the policy
    planted("a kind of any version", "policy", POLICY, "if (version, kind) not in policy.kinds:", "if kind not in {kind for _, kind in policy.kinds}:", RULES),
    planted("what runs first is not looked at", "policy", POLICY, '_CONTAINERS: Final = ("containers", "initContainers", ', '_CONTAINERS: Final = ("containers", ', RULES),
    planted("0 is false", "policy", POLICY, "any(type(value) is type(each) and value == each for each in allowed)", "any(value == each for each in allowed)", RULES),
    planted("the Pod outvotes its containers", "policy", POLICY, "fine(of_pod if value is None else value)", "fine(value if of_pod is None else of_pod)", RULES),
    planted("something is dropped", "policy", POLICY, 'or "ALL" not in value', "or not value", RULES),
    planted("nodes share their files", "policy", POLICY, '"volumes.*.hostPath"', '"volumes.*.hostpath"', RULES),
    planted("root has a number, too", "policy", POLICY, "not isinstance(value, bool) and value != 0)", "not isinstance(value, bool))", RULES),
    planted("what is no list is fine", "policy", POLICY, "        if not isinstance(value, list):\n            yield path, value\n            return\n", "        if not isinstance(value, list):\n            return\n", RULES),
    planted("what has no shape is passed over", "policy", POLICY, "        shapeless = list(_shapeless(obj))\n", "        shapeless = []\n", RULES),
    planted("ConfigMaps of others are read", "policy", POLICY, "(_CONFIG_MAPS, permitted.config_maps,", "((), permitted.config_maps,", RULES),
    planted("what is a ConfigMap's name is a Secret's", "policy", POLICY, "policy.service_accounts, policy.secrets, policy.config_maps", "policy.service_accounts, policy.secrets | policy.config_maps, policy.config_maps", RULES),
    planted("a name that is missing is permitted", "policy", POLICY, "is_there = value is not None or look_up(pod, path[:-1]) is not None", "is_there = value is not None", RULES),
    planted("disks of others are copied", "policy", POLICY, "            is_fine = name in permitted.disks\n", "            pass\n", RULES),
    planted("a token unless it is refused", "policy", POLICY, "if automount is not False and not", "if automount and not", RULES),
    planted("a token in a volume", "policy", POLICY, "if value is not None and not given:", "if False:", RULES),
    planted("scripts in arguments", "policy", POLICY, ', *_words(container, (*at, "args"))]', "]", RULES),
    planted("a pattern makes text safe", "policy", POLICY, "parameters[name].is_free_text", "(parameters[name].is_free_text and not parameters[name].pattern)", RULES),
    planted("disks that stand nowhere", "policy", POLICY, "    if claims:\n", "    if False:\n", RULES),
    planted("what is chosen is never counted", "policy", POLICY, "is_open = is_template and", "is_open =", RULES),
    # the importer
    planted("repaired without being asked", "import", IMPORT, "if self._commas and not self._repair:", "if False:", OLD, PROPERTY),
    planted("columns begin with 0", "import", IMPORT, "column {place - self._text.rfind(chr(10), 0, place)}", "column {place - self._text.rfind(chr(10), 0, place) - 1}", OLD, PROPERTY),
    planted("a comma is missed where the next begins", "import", IMPORT, '_Comma(end, f"put', '_Comma(self._place, f"put', OLD, PROPERTY),
    planted("what is filled in is not said", "import", IMPORT, '        yield Note(f"{at}.{spell(path)}", f"{json.dumps(wanted)} {HARDENED}")\n', "        yield from ()\n", OLD),
    planted("what is said is written over", "import", IMPORT, "    if look(value, path) is None:\n", "    if True:\n", OLD),
    planted("one mapping in two places", "import", IMPORT, 'copy.deepcopy(template["metadata"]["labels"])', 'template["metadata"]["labels"]', OLD),
    planted("the disk of anybody", "import", IMPORT, "if not isinstance(name, str) or not begins_with_name(name):", "if not isinstance(name, str):", OLD),
    planted("the last of two keys counts, here too", "import", IMPORT, "            if key in found:\n", "            if False:\n", OLD),
    planted("a claim is made again", "import", IMPORT, "            if name not in there:\n", "            if True:\n", OLD),
)  # fmt: skip
