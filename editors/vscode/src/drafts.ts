import type { Piece } from "./protocol";

/** A stretch of a draft's line: sure, still changing, or a word on what is not shown. */
export interface Stretch {
    text: string;
    kind: "settled" | "unsettled" | "more";
}

/**
 * A draft on one line, for a decoration can hold no line break: its first line, and how many lines follow.
 * Neighbours of one kind are one stretch.
 */
export function onOneLine(pieces: readonly Piece[]): Stretch[] {
    const lines = pieces
        .map((piece) => piece.text)
        .join("")
        .split("\n");
    const stretches: Stretch[] = [];
    let left = (lines[0] ?? "").length;
    for (const piece of pieces) {
        append(stretches, { text: piece.text.slice(0, left), kind: piece.settled ? "settled" : "unsettled" });
        left = Math.max(0, left - piece.text.length);
    }
    if (lines.length > 1) {
        append(stretches, { text: ` ⏎ ${lines.length - 1} more`, kind: "more" });
    }
    return stretches;
}

function append(stretches: Stretch[], next: Stretch): void {
    const last = stretches.at(-1);
    if (last?.kind === next.kind) {
        last.text += next.text;
    } else if (next.text !== "") {
        stretches.push(next);
    }
}
