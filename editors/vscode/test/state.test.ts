import assert from "node:assert/strict";
import { test } from "node:test";
import { appearance } from "../src/state";

test("loading has its percentage, in text and in words", () => {
    const { text, title } = appearance({ state: "loading", message: "Loading the model.", fraction: 0.456 }, undefined);
    assert.match(text, /dg 46%$/);
    assert.equal(title, "dg-lsp: loading 46%");
});

test("loading without a known fraction has none", () => {
    assert.match(appearance({ state: "loading", message: "", fraction: null }, undefined).text, /dg$/);
});

test("an error says the reason and what to do, in the colour of errors", () => {
    const shown = appearance({ state: "error", message: "No memory.", remedy: "Close a tab." }, undefined);
    assert.equal(shown.tone, "error");
    assert.deepEqual(shown.lines, ["No memory.", "Close a tab."]);
});

test("a server that is not there is a warning, one that has stopped an error", () => {
    assert.equal(appearance({ state: "missing", message: "" }, undefined).tone, "warning");
    assert.equal(appearance({ state: "stopped", message: "" }, undefined).tone, "error");
});

test("a language that is off shows as off while all is well, but hides no error", () => {
    const python = { name: "python", enabled: false };
    assert.equal(appearance({ state: "ready", message: "" }, python).title, "dg-lsp: off");
    assert.deepEqual(appearance({ state: "ready", message: "" }, python).lines, ["Completions are off for python."]);
    assert.equal(appearance({ state: "error", message: "" }, python).title, "dg-lsp: error");
    assert.equal(appearance({ state: "ready", message: "" }, { ...python, enabled: true }).title, "dg-lsp: ready");
});

test("ready and working are equally wide, so that nothing moves while one types", () => {
    const width = (state: "ready" | "working") =>
        appearance({ state, message: "" }, undefined).text.replace(/\$\([^)]*\)/, "x");
    assert.equal(width("ready"), width("working"));
});
