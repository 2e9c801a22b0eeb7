"""Calico's selector language, read into ``policy.selector`` values.

Grammar as of libcalico-go's tokenizer and parser (3.29 to 3.32)::

    selector  = [ or ]                                   nothing at all means all()
    or        = and { "||" and }
    and       = operation { "&&" operation }
    operation = { "!" } ( "(" or ")" | "has(" KEY ")" | "all()" | "global()" | KEY condition )
    condition = ( "==" | "!=" | "contains" | "starts with" | "ends with" ) TEXT
              | ( "in" | "not in" ) "{" [ TEXT { "," TEXT } [ "," ] ] "}"

KEY is 1 to 512 of ``a-z A-Z 0-9 _ . / -``. TEXT stands in either quote and has no escapes. The two-word
operators may be written as one word. Only spaces and tabs separate. No word is reserved: a label may be
called ``has``, and a function's bracket follows its name at once.

Parentheses nest 50 deep at most, so that neither reading nor using a hostile selector overflows the stack.
"""

import re

from towpath.policy.ir import NAMESPACE, NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX
from towpath.policy.selector import All, Has, Not, Selector, Text, conjunction, disjunction, equal, one_of

MAX_DEPTH = 50
MAX_KEY = 512

_TOKEN = re.compile(
    r"""[ \t]* (?: (?P<text> "[^"]*" | '[^']*' )
                 | (?P<symbol> == | != | ! | && | \|\| | [(){},] )
                 | (?P<word> [A-Za-z0-9_./-]+ )
                 | (?P<end> \Z )
                 | (?P<other> (?s:.) ) )""",
    re.VERBOSE,
)
_FUNCTIONS = ("has", "all", "global")
_TWO_WORDS = ("not", "starts", "ends")
_ONE_WORD = {"notin": "not in", "startswith": "starts with", "endswith": "ends with"}
_OPERATORS = ("==", "!=", "in", "not in", "contains", "starts with", "ends with")
_ALL: Selector = All()
_IN_NAMESPACE = Has(NAMESPACE)


class SelectorError(ValueError):
    """A selector that cannot be read. ``position`` counts characters from 0; the sentence says it from 1."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(f"{problem} (at character {position + 1})")
        self.position = position


def parse_selector(text: str, *, everything: Selector = _ALL) -> Selector:
    """The selector over an endpoint's own labels; ``all()`` written out means ``everything``.

    Raises SelectorError, also for ``global()``.
    """
    return _Parser(text, "", everything, None).selector()


def parse_namespace_selector(text: str, *, allow_global: bool = False) -> Selector:
    """The selector over namespaces, as one over the labels that endpoints inherit from them.

    ``all()`` means what is in a namespace, ``global()`` (where it is allowed) what is in none. As in Calico a
    negation also holds of what is in no namespace, for that has no namespace's labels. Raises SelectorError.
    """
    outside = Not(_IN_NAMESPACE) if allow_global else None
    return _Parser(text, NAMESPACE_PREFIX, _IN_NAMESPACE, outside).selector()


def parse_service_account_selector(text: str, *, everything: Selector = _ALL) -> Selector:
    """The selector over service accounts, as one over the labels that pods inherit. Raises SelectorError."""
    return _Parser(text, SERVICE_ACCOUNT_PREFIX, everything, None).selector()


class _Parser:
    """One pass over one text, one token ahead."""

    def __init__(self, text: str, prefix: str, everything: Selector, outside: Selector | None) -> None:
        self.text, self.prefix, self.everything, self.outside = text, prefix, everything, outside
        self.tokens = _TOKEN.finditer(text)
        self.depth = 0
        self._advance()

    def selector(self) -> Selector:
        if self.kind == "end":
            return self.everything
        selector = self._or()
        if self.kind != "end":
            raise self._error("&& or || or the end is expected")
        return selector

    def _advance(self) -> None:
        token = next(self.tokens)  # never beyond the end: that token is not advanced over
        self.kind = token.lastgroup or ""
        self.lexeme = token[self.kind]
        self.start, self.end = token.span(self.kind)

    def _error(self, expectation: str) -> SelectorError:
        if self.kind == "end":
            return SelectorError(self.start, f"the selector ends where {expectation}")
        if self.kind != "other":
            return SelectorError(self.start, f"{expectation}, but there is {_shown(self.lexeme)}")
        if self.lexeme in "\"'":
            return SelectorError(self.start, f"the quote {self.lexeme} is not closed")
        if self.lexeme in "=&|":
            return SelectorError(self.start, f"{self.lexeme} must be doubled: {self.lexeme * 2}")
        if self.lexeme in "\r\n":
            return SelectorError(self.start, "a selector is one line: only spaces and tabs may separate")
        return SelectorError(self.start, f"{expectation}, and {self.lexeme!r} has no meaning in a selector")

    def _expect(self, symbol: str, expectation: str) -> None:
        if self.lexeme != symbol or self.kind != "symbol":
            raise self._error(expectation)
        self._advance()

    def _take(self, symbol: str) -> bool:
        if self.kind == "symbol" and self.lexeme == symbol:
            self._advance()
            return True
        return False

    def _or(self) -> Selector:
        operands = [self._and()]
        while self._take("||"):
            operands.append(self._and())
        return disjunction(*operands)

    def _and(self) -> Selector:
        operands = [self._operation()]
        while self._take("&&"):
            operands.append(self._operation())
        return conjunction(*operands)

    def _operation(self) -> Selector:
        negated = False
        while self._take("!"):
            negated = not negated
        if self.kind == "symbol" and self.lexeme == "(":
            selector = self._group()
        elif self.kind != "word":
            raise self._error('a condition is expected, such as app == "web" or has(app)')
        elif self.lexeme in _FUNCTIONS and self.text[self.end : self.end + 1] == "(":
            selector = self._function()
        else:
            selector = self._condition()
        return _negation(selector) if negated else selector

    def _group(self) -> Selector:
        opened = self.start
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SelectorError(opened, f"parentheses may nest {MAX_DEPTH} deep at most")
        self._advance()
        selector = self._or()
        self._expect(")", f") is expected for the ( at character {opened + 1}")
        self.depth -= 1
        return selector

    def _function(self) -> Selector:
        name, start = self.lexeme, self.start
        self._advance()
        self._advance()
        if name == "has":
            selector: Selector = Has(self._key("the name of a label is expected in has()"))
        elif name == "all":
            selector = self.everything
        elif self.outside is not None:
            selector = self.outside
        else:
            raise SelectorError(start, "global() is for the namespaceSelector of a rule only")
        self._expect(")", f") is expected to end {name}(")
        return selector

    def _key(self, expectation: str) -> str:
        if self.kind != "word":
            raise self._error(expectation)
        if len(self.lexeme) > MAX_KEY:
            raise SelectorError(self.start, f"a label's name has {MAX_KEY} characters at most")
        key = self.prefix + self.lexeme
        self._advance()
        return key

    def _condition(self) -> Selector:
        label = self.lexeme
        key = self._key("")
        operator = self._operator(label)
        if operator in ("in", "not in"):
            selector: Selector = one_of(key, self._values())
        elif operator in ("==", "!="):
            selector = equal(key, self._string())
        else:
            selector = Text(key, operator, self._string())
        return Not(selector) if operator in ("!=", "not in") else selector

    def _operator(self, label: str) -> str:
        expectation = f"an operator is expected after {_shown(label)} ({', '.join(_OPERATORS)})"
        operator = _ONE_WORD.get(self.lexeme, self.lexeme)
        if self.kind == "word" and operator in _TWO_WORDS:
            self._advance()
            operator = f"{operator} {self.lexeme}"
        if operator not in _OPERATORS or self.kind not in ("word", "symbol"):
            raise self._error(expectation)
        self._advance()
        return operator

    def _string(self) -> str:
        if self.kind != "text":
            raise self._error("a value in quotes is expected")
        value = self.lexeme[1:-1]
        self._advance()
        return value

    def _values(self) -> list[str]:
        self._expect("{", "a set of values is expected: { ... }")
        values: list[str] = []
        while self.kind == "text":
            values.append(self._string())
            if not self._take(","):
                break
        self._expect("}", "a value in quotes, or } to end the set, is expected")
        return values


def _negation(selector: Selector) -> Selector:
    return selector.operand if isinstance(selector, Not) else Not(selector)


def _shown(lexeme: str) -> str:
    return lexeme if len(lexeme) <= 40 else f"{lexeme[:39]}…"
