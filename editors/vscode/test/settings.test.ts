import assert from "node:assert/strict";
import { test } from "node:test";
import { forServer, isEnabled, type Values } from "../src/settings";

const none = new Map<string, Values>();

test("this extension's own settings never reach the server", () => {
    const section = { enabled: true, server: { path: "/bin/x" }, trace: { server: "off" }, engine: { model: "m" } };
    assert.deepEqual(forServer(section, none), { enabled: true, engine: { model: "m" } });
});

test("a key that nobody knows does reach it, to be refused by its name", () => {
    assert.deepEqual(forServer({ debounce: 5 }, none), { debounce: 5 });
});

test("a language's block is laid over what `languages` says of it", () => {
    const section = { languages: { python: { multiLine: "never", inComments: false }, lua: false } };
    const blocks = new Map([
        ["python", { multiLine: "always" }],
        ["lua", { maxNewTokens: 8 }],
        ["go", { enabled: false }],
    ]);
    assert.deepEqual(forServer(section, blocks)["languages"], {
        python: { multiLine: "always", inComments: false },
        lua: { enabled: false, maxNewTokens: 8 },
        go: { enabled: false },
    });
});

test("a language that gets a block keeps what holds for all others", () => {
    const section = { languages: { "*": { inComments: false } } };
    const languages = forServer(section, new Map([["go", { multiLine: "never" }]]))["languages"];
    assert.deepEqual(languages, { "*": { inComments: false }, go: { inComments: false, multiLine: "never" } });
});

test("completions are on for a language as the server will find", () => {
    assert.equal(isEnabled({}, "python"), true);
    assert.equal(isEnabled({ enabled: false, languages: { python: true } }, "python"), false);
    assert.equal(isEnabled({ languages: { python: false } }, "python"), false);
    assert.equal(isEnabled({ languages: { "*": false, python: true } }, "python"), true);
    assert.equal(isEnabled({ languages: { "*": false } }, "lua"), false);
    assert.equal(isEnabled({ languages: { lua: { enabled: false } } }, "lua"), false);
});
