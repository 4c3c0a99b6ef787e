import type { Readable } from "node:stream";
import { createInterface } from "node:readline";
import * as vscode from "vscode";
import type { ClientCapabilities, MessageTransports, StaticFeature } from "vscode-languageclient";
import { LanguageClient, type LanguageClientOptions, type ServerOptions } from "vscode-languageclient/node";
import { type Feature, undelay } from "./undelayed";

const TAIL_LINES = 20;

/** The last lines that the server wrote on standard error: they say why it ended. */
export class Tail {
    #lines: string[] = [];
    /** Why it would not be introduced, if it said so. */
    refusal = "";

    /** Follow a stream. Its lines are not copied to the log: the server sends its log over the protocol too. */
    readonly follow = (stream: Readable): void => {
        this.#lines = [];
        this.refusal = "";
        createInterface(stream).on("line", (line) => {
            this.#lines = [...this.#lines, line].slice(-TAIL_LINES);
        });
    };

    get text(): string {
        return this.#lines.join("\n");
    }

    /** What it said for itself, else the last line that says something. */
    get reason(): string {
        const line = this.#lines.findLast((text) => text.trim() !== "");
        return this.refusal || (line ?? "It left no message.");
    }
}

/** A language client that writes to its log what it would show in a popup: the status bar has the state. */
export class QuietClient extends LanguageClient {
    readonly #couldNotRun: (error: unknown) => void;
    #isAbandoned = false;

    /** `couldNotRun` is told why the program did not, at the first start or at one after a crash. */
    constructor(server: ServerOptions, options: LanguageClientOptions, couldNotRun: (error: unknown) => void) {
        super("dg", "dg-lsp", server, options);
        this.#couldNotRun = couldNotRun;
        this.registerFeature(EXTENSIONS);
    }

    /** End a server that has not introduced itself, for it cannot be asked to end. */
    abandon(): void {
        this.#isAbandoned = true;
        this.serverProcess?.kill("SIGKILL");
        // The program may be a script that runs the server: without input this one ends too, and the start fails.
        this.serverProcess?.stdin?.destroy();
    }

    protected override async createMessageTransports(encoding: string): Promise<MessageTransports> {
        const transports = await super.createMessageTransports(encoding).catch((error: unknown) => {
            this.#couldNotRun(error);
            throw error;
        });
        if (this.#isAbandoned) {
            this.abandon();
            throw new Error("The server was given up before it ran.");
        }
        return transports;
    }

    override registerFeature(feature: Feature): void {
        undelay(feature, vscode.languages.registerInlineCompletionItemProvider, (message) => {
            this.info(message);
        });
        super.registerFeature(feature);
    }

    override error(message: string, data?: unknown): void {
        super.error(message, data, false);
    }
}

/** What this client shows beyond the standard. */
const EXTENSIONS: StaticFeature = {
    fillClientCapabilities(capabilities: ClientCapabilities): void {
        capabilities.experimental = { dg: { status: true } };
        // Loading is shown in the status bar item; progress of its own beside it would show it twice.
        capabilities.window = { ...capabilities.window, workDoneProgress: false };
    },
    initialize(): void {
        // Nothing: the notification `dg/status` needs no registration.
    },
    getState: () => ({ kind: "static" }),
    clear(): void {
        // Nothing is held.
    },
};
