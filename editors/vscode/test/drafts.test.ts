import assert from "node:assert/strict";
import { test } from "node:test";
import { onOneLine } from "../src/drafts";
import type { Piece } from "../src/protocol";

const settled = (text: string): Piece => ({ text, settled: true });
const unsettled = (text: string): Piece => ({ text, settled: false });

/** Settled text as it is, unsettled in brackets, what is not shown in angles. */
function drawn(...pieces: Piece[]): string {
    const frames = { settled: ["", ""], unsettled: ["[", "]"], more: ["<", ">"] };
    return onOneLine(pieces)
        .map(({ text, kind }) => frames[kind].join(text))
        .join("");
}

test("neighbours of one kind are one stretch, in the draft's order", () => {
    assert.equal(drawn(settled("a"), settled("b"), unsettled("·"), unsettled("·"), settled("c")), "ab[··]c");
});

test("a draft of several lines shows its first and counts the others", () => {
    assert.equal(drawn(settled("if x:\n    y"), unsettled("·\n·")), "if x:< ⏎ 2 more>");
});

test("a line break within an unsettled piece ends the line there", () => {
    assert.equal(drawn(settled("a"), unsettled("··\n··"), settled("hidden")), "a[··]< ⏎ 1 more>");
});

test("a draft that begins with a line break has nothing but the count", () => {
    assert.equal(drawn(settled("\nreturn 1")), "< ⏎ 1 more>");
});

test("an empty draft draws nothing", () => {
    assert.deepEqual(onOneLine([]), []);
    assert.deepEqual(onOneLine([settled("")]), []);
});

test("a draft is not changed by being laid out", () => {
    const pieces = [settled("a"), settled("b")];
    onOneLine(pieces);
    assert.deepEqual(pieces, [settled("a"), settled("b")]);
});
