# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501, RUF001
"""Values that somebody could give to get more than a value, or that are only hard: what is put into a template.

`CORPUS` has more than 500, each by a name. Which of them must be refused is said here, too (`is_refused`), and what has
to become of the others (`put_in`, `expanded`, `shape`): by code of its own, which knows nothing of what it is to judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_VALUE = 4096  # bytes

QUOTES = (
    '"', "'", "`", '""', "''", "\\", '\\"', "\\'", "\\\\", '"""', "'''", "“", "„", "«", '" "', "' '",
    '", "injected": "1', "', 'injected': '1", '"}', '"]', '"]}', '"}]}', "'}", '\\"}', '\\\\"}', '"; echo x; "',
    'a"b', "a'b", 'a\\"b', '"a', 'a"', "'a", "a'", "\\u0022", "\\x22", "&quot;", "%22", "\\042",
)  # fmt: skip
LINES = (
    "\n", "\r", "\r\n", "\n\n", "a\nb", "a\n", "\na", "a\r\nb", "\t", "\ta", "a\t", " ", "  ", " a", "a ", "\x0b", "\x0c",
    "\x85", "\u2028", "\u2029", "a\n  injected: 1", "\ninjected: 1", "\n- injected", "\n---\nkind: Secret\n", "a\n...\nb",
    "\n\n\n  hostPath: {path: /}", "a\\\nb", "a\\nb", "\n#", "a #b", "\n%YAML 1.2\n---\n", "|\n  a", ">\n  a", "|-\n", ">+\n",
)  # fmt: skip
PLACEHOLDERS = (
    "{{", "}}", "{", "}", "{{}}", "{{.Name}}", "{{ Name }}", "{{.AccessList}}", "{{.Value}}", "{{.value}}", "{{value}}",
    "{{.Name", ".Name}}", "{{{{.Name}}}}", "{{{.Name}}}", '{{"{{"}}', "{{.Undefined}}", "{{ .Name | html }}",
    '{{printf "%s" .Name}}', "{{range .}}x{{end}}", "{{if true}}x{{end}}", "{{template \"x\"}}", "{{define \"x\"}}",
    "{{- .Name -}}", "{{/* x */}}", "{{len .}}", "{{.}}", "{{$x := 1}}", "{% include '/etc/passwd' %}", "{{ 7*7 }}",
    "{{ ''.__class__.__mro__ }}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "{{lookup('pipe', 'id')}}", "[[.Name]]", "<<Name>>",
    "%(Name)s", "%s%s%s%n", "{0}", "{Name!r}", "{.__init__.__globals__}", "$Name", "$$", "@Name@", "{{.Name}}{{.Name}}",
)  # fmt: skip
KUBERNETES = (
    "$(HOME)", "$$(HOME)", "$$$(HOME)", "$(SECRET)", "$(", ")", "$()", "$(A)$(B)", "$( A )", "$", "$$$", "a$", "$a", "(A)",
    "(SECRET)", "A)", "$(A", "${A}", "$((1))", "$(SECRET)\n", "x$(SECRET)y$(SECRET)z", "$$$$(SECRET)", "$($(SECRET))",
)  # fmt: skip
YAML = (
    "!!python/object/apply:os.system ['id']", "!!python/name:os.system", "!!binary aGk=", "!!set {a}", "!!str 1", "!!int '1'",
    "!!map {a: b}", "!!seq [a]", "!custom", "!", "!<tag:yaml.org,2002:str> x", "&anchor x", "*anchor", "&a [*a]", "<<", "<<: *a",
    "? a", ": a", "a: b", "a: b: c", "- a", "-", "--", "---", "...", "[a, b]", "{a: b}", "[", "]", "{a", "a}", ",", "a, b", "#",
    "# a", "%", "@", "`", "|", ">", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "yes", "Yes", "no", "NO", "on",
    "off", "y", "n", "=", "2026-01-01", "2026-01-01T00:00:00Z", "12:30:45", "1:20", "0o17", "017", "0x1F", "0b101", "1_000", ".inf",
    "-.inf", ".nan", ".NaN", "1e3", "1.", ".5", "+1", "-0", "'", "a:", ":a", "a :b", "::", "-a", "?a", "{}", "[]", "''", '""',
)  # fmt: skip
JSON = (
    '{"a": 1}', "[1, 2]", '{"a": {"b": [1]}}', '{"In":["mallory"]}', '"], "In": ["mallory"', '},"Admin":{"In":["mallory"]',
    '}}, "volumes": [{"hostPath": {"path": "/"}}]', '"}}', "null", "NaN", "Infinity", "-Infinity", '{"__proto__": {}}',
    '{"$ref": "#/"}', '{"a": 1, "a": 2}', "\\u0000", "\\ud800", "\\ud83d\\ude00", "/* x */", "// x", '{"a": 1,}', "[,]",
    '["", null, {}]', '"\\"', '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}', '{"muster.dev/owner": "mallory"}',
)  # fmt: skip
NUMBERS = (
    "0", "1", "-1", "00", "01", "1.0", "1e400", "-1e400", "1e-400", "9" * 25, "-" + "9" * 25, "9223372036854775807",
    "9223372036854775808", "-9223372036854775809", "0.1", "1/0", "1,000", "١٢٣", "½", "∞", "NaN", "0x7fffffff", "1" * 4096,
    "2147483648", "65536", "50Gi", "1e9", "100m", "-0.0", "1E+2",
)  # fmt: skip
SHELL = (
    "; id", "| id", "|| id", "& id", "&& id", "`id`", "$(id)", "> /etc/passwd", "< /etc/passwd", "a;b", "'; id; '", '"; id; "',
    "\nid\n", "*", "?", "~", "~root", "!!", "!id", "-rf /", "--help", "-", "--", "-c", "$IFS", "${IFS}", "$PATH", "\\", "a\\", "%0a",
    "() { :;}; id", "{a,b}", "\x1b[2J", "\x1b]0;x\x07", "a b", "a\tb", "<(id)", ">(id)", "$'\\n'", "exec id",
)  # fmt: skip
NAMES = (
    "../../etc/passwd", "/etc/passwd", "..", ".", "/", "//", "a/b", "a/../b", "C:\\", "\\\\host\\share", "file:///etc/passwd",
    "http://169.254.169.254/", "kube-system", "default", "muster.dev/owner", "kubernetes.io/psp", "system:masters",
    "system:serviceaccount:kube-system:default", "group:admins", "alice@example.org", "CN=x,O=system:masters", "a=b", "a==b",
    "a in (b)", "!a", "a,b", "latest", "image@sha256:0", "x" * 63, "x" * 64, "x" * 253, "x" * 254, "-x", "x-", "X", "x_y", "xn--a",
    "%2e%2e%2f", "..%2f", "....//", "‥/", "%00", "<script>alert(1)</script>", "<!--", "]]>", "<!ENTITY x SYSTEM 'file:///'>",
    "' OR 1=1 --", "\") ; drop", "*)(uid=*", "&amp;", "&#0;", "a\u0301", "Ａ", "javascript:x", "data:,x",
)  # fmt: skip
UNICODE = (
    "é", "e\u0301", "ß", "ẞ", "ﬃ", "İ", "ı", "Σς", "日本語", "עברית", "العربية", "हिन्दी", "ไทย", "👩\u200d👩\u200d👧", "🏴\U000e0067\U000e007f",
    "😀", "𝕏", "\U0010ffff", "\U0001f4a9", "\ufeff", "\ufeffa", "\ufffe", "\uffff", "\ufdd0", "\U0001fffe", "\ufffd", "\u200b",
    "\u200c", "\u200d", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069",
    "\u061c", "\u00a0", "\u00ad", "\u034f", "\u115f", "\u1160", "\u17b4", "\u180e", "\u2060", "\u3000", "\u3164", "\uffa0",
    "user\u202etxt.exe", "\u2066admin\u2069", "pаypal", "ａｄｍｉｎ", "a\u0300\u0301\u0302", "z" + "\u0301" * 500, "\U000e0001",
    "\ue000", "\U000f0000", "｛｛.Name｝｝", "＂", "＇", "﹛﹛", "\u2024\u2024/", "\u0378",
)  # fmt: skip
SURROGATES = (
    "\ud800", "\udbff", "\udc00", "\udfff", "a\ud800", "\ud800a", "\udc00\ud800", "\ud83d", "\ude00", "\ud83d\ud83d",
    "\udc80", "\udcff", '"\ud800"', "{{\ud800}}",
)  # fmt: skip
NULS = (
    "\0", "a\0", "\0a", "a\0b", "\0\0", '"\0"', "\0\n", "é\0", "$(\0)", "{{\0}}", "a\0, injected: 1", "\0" * 100,
)  # fmt: skip
WRAPPED = ('{v}"', '"{v}"', "'{v}'", "x{v}", "{v}x", "{v}\n{v}", "{{{{{v}}}}}", "[{v}]", "{{{v}}}", "\n  {v}: {v}\n")
LENGTHS = (MAX_VALUE - 1, MAX_VALUE, MAX_VALUE + 1, 65_536)
MEBIBYTE = 1024 * 1024


def _long() -> Iterator[tuple[str, str]]:
    for length in LENGTHS:
        for text in ("a", '"', "\\", "{", "\n", "$", "é", "日", "😀", "{{.Name}}", "a: &a [*a]\n"):
            yield f"{length} bytes of {text!r}", text * (length // len(text.encode()))
            yield f"{length} bytes and one, of {text!r}", text * (length // len(text.encode())) + "x"
    for text in ("a", '"', "{", "日"):
        yield f"1 MiB of {text!r}", text * (MEBIBYTE // len(text.encode()))


def _corpus() -> Iterator[tuple[str, str]]:
    yield "nothing", ""
    families: Mapping[str, tuple[str, ...]] = {
        "quotes": QUOTES, "lines": LINES, "placeholders": PLACEHOLDERS, "Kubernetes": KUBERNETES, "YAML": YAML, "JSON": JSON,
        "numbers": NUMBERS, "shell": SHELL, "names": NAMES, "Unicode": UNICODE, "surrogates": SURROGATES, "NUL": NULS,
    }  # fmt: skip
    for family, values in families.items():
        for number, value in enumerate(values):
            yield f"{family} {number}", value
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        yield f"U+{code:04X}", f"a{chr(code)}b"
    for family in ("quotes", "placeholders", "Kubernetes", "JSON"):
        for number, value in enumerate(families[family]):
            wrapper = WRAPPED[number % len(WRAPPED)]
            yield f"{family} {number} in {wrapper!r}", wrapper.replace("{v}", value)
    yield from _long()


def _distinct() -> dict[str, str]:
    """Each value once, by the first of its names."""
    names: dict[str, str] = {}
    for name, value in _corpus():
        names.setdefault(value, name)
    return {name: value for value, name in names.items()}


CORPUS: Mapping[str, str] = _distinct()


# ---------------------------------------------------------------------------------------------------------------------
# What has to become of them


def is_refused(value: str) -> bool:
    """Whether it can't be in an object."""
    try:
        return "\0" in value or len(value.encode("utf-8")) > MAX_VALUE
    except UnicodeEncodeError:
        return True


def put_in(text: str, values: Mapping[str, str]) -> str:
    """What a text is with the values put in, in one pass: what was put in is not looked at again."""
    result, rest = "", text
    while rest:
        name = next((name for name in values if rest.startswith(f"{{{{.{name}}}}}")), None)
        if name is None:
            result, rest = result + rest[0], rest[1:]
        else:
            result, rest = result + values[name], rest[len(name) + 5 :]
    return result


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """What a program gets of a container's text, by the documentation of `args`: $(NAME) is replaced, $$ is $."""
    result, place = [], 0
    while place < len(text):
        if text[place] == "$" and text[place + 1 : place + 2] == "$":
            result.append("$")
            place += 2
        elif text[place] == "$" and text[place + 1 : place + 2] == "(" and ")" in text[place:]:
            end = text.index(")", place)
            name = text[place + 2 : end]
            result.append(variables.get(name, f"$({name})"))
            place = end + 1
        else:
            result.append(text[place])
            place += 1
    return "".join(result)


def shape(value: Any) -> Any:
    """A tree with each scalar replaced by its type: equal shapes have equal keys, lengths and types."""
    if isinstance(value, dict):
        return {key: shape(of) for key, of in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value)
