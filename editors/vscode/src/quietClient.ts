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

    /** Follow a stream. Its lines are not copied to the log: the server sends its log over the protocol too. */
    readonly follow = (stream: Readable): void => {
        this.#lines = [];
        createInterface(stream).on("line", (line) => {
            this.#lines = [...this.#lines, line].slice(-TAIL_LINES);
        });
    };

    get text(): string {
        return this.#lines.join("\n");
    }

    /** The last line that says something. */
    get reason(): string {
        return this.#lines.findLast((line) => line.trim() !== "") ?? "It left no message.";
    }
}

/** A language client that writes to its log what it would show in a popup: the status bar has the state. */
export class QuietClient extends LanguageClient {
    #isAbandoned = false;

    constructor(server: ServerOptions, options: LanguageClientOptions) {
        super("dg", "dg-lsp", server, options);
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
        const transports = await super.createMessageTransports(encoding);
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
