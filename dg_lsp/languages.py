"""What is known about each language: its grammar wheel, its comments and quotes, and which line endings open a block.

Rows are found by the client's language identifier first and by the file's suffix second; editors disagree about the
identifiers (`shellscript` in VS Code is `sh` in Neovim), so a row lists all of them. A row without a grammar wheel goes
by lines alone. A language without a row gets `PLAIN`, whose facts hold for most.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

_BRACE_OPENER = r"\{\s*$|^\s*(?:case\b.*|default\s*):\s*$"
_RUBY_OPENER = (
    r"\b(?:do|then|begin|else|ensure)\s*(?:\|[^|]*\|)?\s*$"
    r"|^\s*(?:def|class|module|if|unless|while|until|case|when|elsif|rescue|for)\b(?!.*\bend\s*$).*$"
)
_MODIFIED = (
    r"(?:(?:abstract|async|const|extern|final|internal|override|private|protected|public|readonly|sealed|static"
    r"|synchronized|unsafe|virtual)\s+)+"
)
_TYPES = rf"(?:{_MODIFIED})?(?:class|enum|interface)\s+\w+"
_METHOD = rf"{_MODIFIED}(?:<[^()]*>\s+)?[^\s()=;][^()=;]*\s\w+(?:\([^()]*\)?)?"
_PROPERTY = r"[\w-]+:(?=\s|$)"
_TAG_OPENER = r"<(?!(?:area|base|br|col|hr|img|input|link|meta|wbr)\b)[A-Za-z][^<>]*(?<!/)>\s*$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The facts about one language. `opener` and `closer` are searched in a line without its terminator."""

    ids: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    module: str = ""
    """The grammar's module, empty where there is none."""
    function: str = "language"
    """The function of `module` that returns the grammar."""
    line_comments: tuple[str, ...] = ("//",)
    block_comments: tuple[tuple[str, str], ...] = (("/*", "*/"),)
    quotes: str = "\"'"
    """The characters that quote strings of any length within a line."""
    quotes_characters: bool = False
    """Whether `'` quotes one character, as in C; `'static` and `1'000` open nothing then."""
    opener: str = _BRACE_OPENER
    closer: str = r"^\s*[}\])]"
    indented: bool = False
    """Whether indentation alone delimits blocks."""
    ends: str = ";}"
    """The characters that end a statement and mostly its line."""
    declaration: str = ""
    """What begins a line that declares a name, up to its end, if a block declares a name once; empty if unknown."""
    overload: str = ""
    """What begins a line that declares a function, with its parameters so far, if others may have the same name."""
    prototype: str = ""
    """What ends a line that declares a function which is defined elsewhere, or may do so."""

    def opens_block(self, line: str) -> bool:
        """Whether a block begins where `line` ends, as far as the line alone can say."""
        return re.search(self.opener, line) is not None

    def closes_block(self, line: str) -> bool:
        """Whether `line` begins with what ends a block."""
        return re.search(self.closer, line) is not None


PLAIN = Language(line_comments=(), block_comments=(), quotes='"', opener=r"[:{]\s*$")

PROSE = Language(line_comments=(), block_comments=(), quotes="")
"""What stands in comments and strings: brackets, and no apostrophe begins anything."""

_SCRIPT = "\"'`"
_TYPESCRIPT = (
    r"(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?"
    r"(?:class|const(?:\s+enum)?|enum|interface|let|type)\s+\w+"
)

LANGUAGES: tuple[Language, ...] = (
    Language(
        ids=("python",),
        suffixes=(".py", ".pyi"),
        module="tree_sitter_python",
        line_comments=("#",),
        block_comments=(),
        opener=r":\s*(?:#.*)?$",
        closer=r"^\s*[}\])]",
        indented=True,
        ends="",
        declaration=r"(?:async\s+)?(?:def|class)\s+\w+",
    ),
    Language(
        ids=("javascript", "javascriptreact"),
        suffixes=(".js", ".jsx", ".mjs", ".cjs"),
        module="tree_sitter_javascript",
        quotes=_SCRIPT,
        declaration=r"(?:export\s+)?(?:default\s+)?(?:async\s+)?(?:class|const|function|let)\s+\w+",
    ),
    Language(
        ids=("typescript",),
        suffixes=(".ts", ".mts", ".cts"),
        module="tree_sitter_typescript",
        function="language_typescript",
        quotes=_SCRIPT,
        declaration=_TYPESCRIPT,
    ),
    Language(
        ids=("typescriptreact",),
        suffixes=(".tsx",),
        module="tree_sitter_typescript",
        function="language_tsx",
        quotes=_SCRIPT,
        declaration=_TYPESCRIPT,
    ),
    Language(
        ids=("go",),
        suffixes=(".go",),
        module="tree_sitter_go",
        quotes='"`',
        quotes_characters=True,
        declaration=r"(?:func\s+(?:\([^)]*\)\s*)?|type\s+)\w+",
    ),
    Language(
        ids=("rust",),
        suffixes=(".rs",),
        module="tree_sitter_rust",
        quotes='"',
        quotes_characters=True,
        declaration=r"(?:pub(?:\([^)]*\))?\s+)?(?:async\s+)?(?:enum|fn|mod|struct|trait)\s+\w+",
    ),
    Language(
        ids=("java",),
        suffixes=(".java",),
        module="tree_sitter_java",
        quotes='"',
        quotes_characters=True,
        declaration=_TYPES,
        overload=_METHOD,
    ),
    Language(
        ids=("c",),
        suffixes=(".c", ".h"),
        module="tree_sitter_c",
        quotes='"',
        quotes_characters=True,
        declaration=r"(?!(?:case|do|else|goto|return|typedef)\b)(?:\w+[\s*]+)+(?=\w*[a-z])\w+(?=\()",
        prototype=r"(?:\)\s*;|,)$",
    ),
    Language(
        ids=("cpp", "cuda-cpp"),
        suffixes=(".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu"),
        module="tree_sitter_cpp",
        quotes='"',
        quotes_characters=True,
    ),
    Language(
        ids=("csharp", "cs"),
        suffixes=(".cs",),
        module="tree_sitter_c_sharp",
        quotes='"',
        quotes_characters=True,
        declaration=_TYPES,
        overload=_METHOD,
    ),
    Language(
        ids=("ruby",),
        suffixes=(".rb", ".rake", ".gemspec"),
        module="tree_sitter_ruby",
        line_comments=("#",),
        block_comments=(("=begin", "=end"),),
        opener=rf"{_RUBY_OPENER}|\{{\s*(?:\|[^|]*\|)?\s*$",
        closer=r"^\s*(?:[}\])]|(?:end|else|elsif|when|rescue|ensure)\b)",
        declaration=r"def\s+[\w.]+[?!=]?",
    ),
    Language(
        ids=("php",),
        suffixes=(".php",),
        module="tree_sitter_php",
        function="language_php",
        line_comments=("//", "#"),
        declaration=rf"(?:{_MODIFIED})?(?:class|function|interface|trait)\s+\w+",
    ),
    Language(
        ids=("shellscript", "sh", "bash", "zsh"),
        suffixes=(".sh", ".bash", ".zsh"),
        module="tree_sitter_bash",
        line_comments=("#",),
        block_comments=(),
        opener=r"(?:\b(?:do|then|else)|\{)\s*$",
        closer=r"^\s*(?:[}\])]|(?:done|fi|esac|else|elif)\b)",
        ends="}",  # `then` and `do` come behind a `;`
    ),
    Language(
        ids=("json", "jsonc"),
        suffixes=(".json",),
        module="tree_sitter_json",
        quotes='"',
        opener=r"[{\[]\s*$",
        declaration=r'"[^"]*"(?=\s*:)',
    ),
    Language(
        ids=("html",),
        suffixes=(".html", ".htm"),
        module="tree_sitter_html",
        line_comments=(),
        block_comments=(("<!--", "-->"),),
        quotes='"',
        opener=_TAG_OPENER,
        closer=r"^\s*</",
    ),
    Language(
        ids=("css",),
        suffixes=(".css",),
        module="tree_sitter_css",
        line_comments=(),
        opener=r"\{\s*$",
        declaration=_PROPERTY,
    ),
    Language(ids=("scss", "less"), suffixes=(".scss", ".less"), opener=r"\{\s*$", declaration=_PROPERTY),
    Language(ids=("kotlin",), suffixes=(".kt", ".kts"), quotes='"', quotes_characters=True),
    Language(ids=("scala",), suffixes=(".scala",), quotes='"', quotes_characters=True),
    Language(ids=("swift",), suffixes=(".swift",), quotes='"'),
    Language(ids=("dart",), suffixes=(".dart",)),
    Language(
        ids=("lua",),
        suffixes=(".lua",),
        line_comments=("--",),
        block_comments=(("--[[", "]]"),),
        opener=r"\b(?:then|do|else|repeat)\s*$|\bfunction\b[^()]*\([^()]*\)\s*$|\{\s*$",
        closer=r"^\s*(?:[}\])]|(?:end|else|elseif|until)\b)",
    ),
    Language(ids=("sql",), suffixes=(".sql",), line_comments=("--",)),
    Language(ids=("perl",), suffixes=(".pl", ".pm"), line_comments=("#",), block_comments=()),
    Language(ids=("r",), suffixes=(".r",), line_comments=("#",), block_comments=()),
    Language(ids=("yaml",), suffixes=(".yaml", ".yml"), line_comments=("#",), block_comments=(), opener=r":\s*$"),
    Language(ids=("toml",), suffixes=(".toml",), line_comments=("#",), block_comments=()),
)

_BY_ID = {name: language for language in LANGUAGES for name in language.ids}
_BY_SUFFIX = {suffix: language for language in LANGUAGES for suffix in language.suffixes}


@lru_cache(maxsize=256)
def language_of(language_id: str, path: str = "") -> Language:
    """The facts for `language_id`, or else for the suffix of `path` (which may be a URI), or else `PLAIN`."""
    if language_id in _BY_ID:
        return _BY_ID[language_id]
    name = unquote(urlsplit(path).path) if "://" in path else path
    return _BY_SUFFIX.get(PurePosixPath(name).suffix.lower(), PLAIN)
