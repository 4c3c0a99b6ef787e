import * as vscode from "vscode";
import {
    CloseAction,
    type CloseHandlerResult,
    ErrorCodes,
    type ErrorHandler,
    ResponseError,
    State,
} from "vscode-languageclient";
import type { Middleware } from "vscode-languageclient";
import { ExecuteCommandRequest } from "vscode-languageclient";
import { SCHEMES, sectionForServer, setting } from "./configuration";
import type { DraftPreview } from "./draftPreview";
import { type Found, locate } from "./locate";
import { DRAFT, type DraftNote, SERVER_COMMANDS, type ServerStatus, type Snooze, STATUS } from "./protocol";
import { QuietClient, Tail } from "./quietClient";
import type { StatusBar } from "./statusBar";

/** A server that crashed so often within three minutes stays down. */
const RESTARTS = 4;

/** A server that has not introduced itself by then never will, on however slow a machine. */
const PATIENCE_S = 30;

/** What a command says when there is no server to ask; its message is for the user. */
export class NotRunning extends Error {}

/** How to run the server. */
export interface Command {
    program: string;
    arguments: string[];
}

function areStrings(value: unknown): value is string[] {
    return Array.isArray(value) && value.every((one) => typeof one === "string");
}

/** What the client's own side answers in a server's place where the connection ends. */
const DISCONNECTED: readonly number[] = [
    ErrorCodes.MessageWriteError,
    ErrorCodes.MessageReadError,
    ErrorCodes.PendingResponseRejected,
    ErrorCodes.ConnectionInactive,
];

/** Whether an error is a server's own answer. */
function isOfServer(error: unknown): error is ResponseError<unknown> {
    return error instanceof ResponseError && !DISCONNECTED.includes(error.code);
}

/** The one server of this window: started, restarted and ended in turn, whoever asks. */
export class Connection implements vscode.Disposable {
    readonly #environment: string;
    readonly #log: vscode.LogOutputChannel;
    readonly #status: StatusBar;
    readonly #drafts: DraftPreview;
    #client: QuietClient | undefined;
    #turn: Promise<void> = Promise.resolve();
    /** When the pause ends that was asked for last, as `Date.now()` has it. */
    #pausedUntil = 0;

    constructor(environment: string, log: vscode.LogOutputChannel, status: StatusBar, drafts: DraftPreview) {
        this.#environment = environment;
        this.#log = log;
        this.#status = status;
        this.#drafts = drafts;
    }

    /** Where the server's program is. */
    find(): Found {
        const searchPath = `${process.env["PATH"] ?? ""}:${process.env["HOME"] ?? ""}/.local/bin`;
        return locate({ path: setting("server.path"), searchPath, environment: this.#environment });
    }

    /**
     * How to run the server.
     *
     * @throws {NotRunning} There is none.
     */
    command(): Command {
        const found = this.find();
        if (found === "missing") {
            throw new NotRunning("The dg-lsp server is not installed.");
        }
        if ("wrong" in found) {
            throw new NotRunning(found.wrong);
        }
        const args: unknown = setting("server.arguments");
        if (!areStrings(args)) {
            throw new NotRunning("The setting dg.server.arguments must be a list of strings.");
        }
        return { program: found.program, arguments: args };
    }

    /** Start the server that the settings name now, in place of the one that may run. */
    restart(): Promise<void> {
        return this.#next(async () => {
            await this.#end();
            await this.#begin();
        });
    }

    /**
     * Run one of the server's own commands.
     *
     * @throws {NotRunning} There is no server to run it.
     */
    async execute<T>(command: string, ...args: unknown[]): Promise<T> {
        if (this.#client?.state !== State.Running) {
            throw new NotRunning("The dg-lsp server is not running.");
        }
        return (await this.#client.sendRequest(ExecuteCommandRequest.type, { command, arguments: args })) as T;
    }

    /**
     * Offer nothing unasked for so many minutes, 0 to end that; so does a server that is started meanwhile.
     *
     * @throws {NotRunning} There is no server.
     */
    async snooze(minutes: number): Promise<void> {
        await this.execute<Snooze>(SERVER_COMMANDS.snooze, minutes);
        this.#pausedUntil = Date.now() + 60_000 * minutes;
    }

    /** Whether such a pause lasts, whatever else the server's state is. */
    get isSnoozed(): boolean {
        return this.#pausedUntil > Date.now();
    }

    async stop(): Promise<void> {
        await this.#next(() => this.#end());
    }

    dispose(): void {
        void this.stop();
    }

    #next(work: () => Promise<void>): Promise<void> {
        // Whoever is next need not wait for a start that may never end.
        this.#abandon();
        this.#turn = this.#turn.then(work).catch((error: unknown) => {
            this.#log.error(error instanceof Error ? error : String(error));
        });
        return this.#turn;
    }

    #abandon(): void {
        if (this.#client?.state === State.Starting) {
            this.#client.abandon();
            this.#client = undefined;
        }
    }

    async #end(): Promise<void> {
        const client = this.#client;
        this.#client = undefined;
        this.#drafts.clear();
        if (client?.state === State.Running) {
            await client.dispose();
        }
    }

    async #begin(): Promise<void> {
        const command = this.#commandOrStatus();
        if (command === undefined) {
            return;
        }
        this.#log.info(`Server: ${[command.program, ...command.arguments].join(" ")}`);
        this.#status.show({ state: "starting", message: "The server starts." });
        this.#client = this.#make(command);
        const patience = setTimeout(() => {
            this.#giveUp();
        }, 1000 * PATIENCE_S);
        try {
            await this.#client.start();
        } catch {
            // It has been shown and logged.
        } finally {
            clearTimeout(patience);
        }
    }

    /** The error handler hears nothing of a program that could not even be run. */
    #couldNotRun(client: QuietClient, error: unknown): void {
        if (client === this.#client) {
            const message = error instanceof Error ? error.message : String(error);
            this.#status.show({ state: "stopped", message, remedy: "Click to restart it, or open the settings." });
        }
    }

    #giveUp(): void {
        this.#abandon();
        const message = `The server has not answered for ${PATIENCE_S} seconds.`;
        this.#log.error(message);
        this.#status.show({
            state: "stopped",
            message,
            remedy: "Click to restart it, or open the settings and see whether dg.server.path names the server.",
        });
    }

    #commandOrStatus(): Command | undefined {
        try {
            return this.command();
        } catch (error) {
            if (!(error instanceof NotRunning)) {
                throw error;
            }
            const isMissing = this.find() === "missing";
            this.#status.show({
                state: isMissing ? "missing" : "stopped",
                message: error.message,
                remedy: isMissing ? "Click to install it or to say where it is." : "Click, and open the settings.",
            });
            return undefined;
        }
    }

    #make(command: Command): QuietClient {
        const tail = new Tail();
        const client: QuietClient = new QuietClient(
            { command: command.program, args: command.arguments },
            {
                documentSelector: SCHEMES.map((scheme) => ({ scheme })),
                outputChannel: this.#log,
                traceOutputChannel: this.#log,
                stdioOptions: { stdout: () => undefined, stderr: tail.follow },
                initializationFailedHandler: (error) => {
                    tail.refusal = isOfServer(error) ? error.message : "";
                    return false;
                },
                errorHandler: this.#errorHandler(() => client, tail),
                middleware: this.#middleware(),
            },
            (error) => {
                this.#couldNotRun(client, error);
            },
        );
        client.onDidChangeState(({ newState }) => {
            if (newState === State.Running) {
                void this.#pauseToo(client);
            }
        });
        client.onNotification(STATUS, (status: ServerStatus) => {
            if (client === this.#client) {
                this.#status.show(status);
            }
        });
        client.onNotification(DRAFT, (note: DraftNote) => {
            this.#drafts.show(note);
        });
        return client;
    }

    async #pauseToo(client: QuietClient): Promise<void> {
        const minutes = (this.#pausedUntil - Date.now()) / 60_000;
        if (minutes > 0) {
            const request = { command: SERVER_COMMANDS.snooze, arguments: [minutes] };
            await client.sendRequest(ExecuteCommandRequest.type, request).catch((error: unknown) => {
                client.error("The pause could not be passed on.", error);
            });
        }
    }

    #middleware(): Middleware {
        return {
            workspace: {
                configuration: async (params, token, next) => {
                    const sections = await next(params, token);
                    return Array.isArray(sections) ? sections.map(sectionForServer) : sections;
                },
            },
            provideInlineCompletionItems: (document, position, context, token, next) =>
                this.#drafts.during(document, position, async () => next(document, position, context, token)),
        };
    }

    #errorHandler(client: () => QuietClient, tail: Tail): ErrorHandler {
        let handler: ErrorHandler | undefined;
        const usual = () => (handler ??= client().createDefaultErrorHandler(RESTARTS));
        return {
            error: async (...details) => ({ ...(await usual().error(...details)), handled: true }),
            closed: async () => ({ ...(await this.#closed(client(), usual(), tail)), handled: true }),
        };
    }

    /** A server that never came up would not come up the next time either. */
    async #closed(client: QuietClient, usual: ErrorHandler, tail: Tail): Promise<CloseHandlerResult> {
        const hasRun = client.state === State.Running;
        const result = hasRun ? await usual.closed() : { action: CloseAction.DoNotRestart };
        this.#drafts.clear();
        this.#log.error(`The server has ended. Its last words:\n${tail.text}`);
        if (client !== this.#client) {
            return { action: CloseAction.DoNotRestart };
        }
        if (result.action === CloseAction.Restart) {
            this.#status.show({ state: "starting", message: "The server had ended and is started again." });
        } else {
            this.#status.show({
                state: "stopped",
                message: tail.reason,
                remedy: "Click to restart it or see the log.",
            });
        }
        return result;
    }
}
