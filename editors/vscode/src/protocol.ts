/** What dg-lsp has beyond the standard protocol; `editors/README.md` describes it for all clients. */

export type ServerState = "idle" | "loading" | "ready" | "working" | "snoozed" | "off" | "error";

/** Parameters of `dg/status`: the state, in words for people. */
export interface ServerStatus {
    state: ServerState;
    message: string;
    /** From 0 to 1, while loading. */
    fraction?: number | null;
    /** What to do after a failure. */
    remedy?: string | null;
    /** Display name of the model. */
    model?: string | null;
}

export interface Position {
    line: number;
    character: number;
}

export interface Piece {
    text: string;
    settled: boolean;
}

/** Parameters of `dg/draft`: what a completion looks like after a denoising step. */
export interface DraftNote {
    textDocument: { uri: string; version: number };
    position: Position;
    step: number;
    milliseconds: number;
    pieces: Piece[];
}

export interface Explanation {
    state: "offered" | "nothing" | "failed";
    reason: string;
    running: number;
}

export interface Model {
    name: string;
    /** The value for the setting `engine.model`. */
    model: string;
    description: string;
    current: boolean;
}

export interface Snooze {
    /** ISO 8601; null when automatic completions go on. */
    until: string | null;
}

/** The server's commands; the language client makes each a command of VS Code too, so ours have other names. */
export const SERVER_COMMANDS = {
    explain: "dg.explain",
    models: "dg.models",
    restartEngine: "dg.restartEngine",
    snooze: "dg.snooze",
} as const;

export const STATUS = "dg/status";
export const DRAFT = "dg/draft";
