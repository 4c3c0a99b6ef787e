import * as vscode from "vscode";
import { languageOfEditor } from "./configuration";
import { type Appearance, type Status, appearance, type Tone } from "./state";

const BACKGROUNDS: Record<Tone, vscode.ThemeColor | undefined> = {
    normal: undefined,
    warning: new vscode.ThemeColor("statusBarItem.warningBackground"),
    error: new vscode.ThemeColor("statusBarItem.errorBackground"),
};

/** Shows the newest status; a click opens the menu. */
export class StatusBar implements vscode.Disposable {
    readonly #item = vscode.window.createStatusBarItem("status", vscode.StatusBarAlignment.Right, 100);
    readonly #listeners: vscode.Disposable[];
    #status: Status = { state: "starting", message: "The server starts." };
    #overlay: Status | undefined;

    constructor(command: string) {
        this.#item.name = "dg-lsp";
        this.#item.command = command;
        this.#listeners = [
            vscode.window.onDidChangeActiveTextEditor(() => {
                this.#draw();
            }),
            vscode.workspace.onDidChangeConfiguration((event) => {
                if (event.affectsConfiguration("dg")) {
                    this.#draw();
                }
            }),
        ];
        this.#draw();
        this.#item.show();
    }

    /** What the server's state is. */
    get status(): Status {
        return this.#status;
    }

    /** What is shown, which may lie over that. */
    get shown(): Status {
        return this.#overlay ?? this.#status;
    }

    show(status: Status): void {
        this.#status = status;
        this.#draw();
    }

    /** Show `status` while `work` goes on; what is told meanwhile shows after that. */
    async during<T>(status: Status, work: () => PromiseLike<T>): Promise<T> {
        this.#overlay = status;
        this.#draw();
        try {
            return await work();
        } finally {
            this.#overlay = undefined;
            this.#draw();
        }
    }

    dispose(): void {
        vscode.Disposable.from(this.#item, ...this.#listeners).dispose();
    }

    #draw(): void {
        const shown = appearance(this.shown, languageOfEditor());
        this.#item.text = shown.text;
        this.#item.backgroundColor = BACKGROUNDS[shown.tone];
        this.#item.tooltip = tooltip(shown);
        this.#item.accessibilityInformation = { label: [`${shown.title}.`, ...shown.lines].join(" "), role: "button" };
    }
}

function tooltip(shown: Appearance): vscode.MarkdownString {
    const text = new vscode.MarkdownString().appendMarkdown(`**${shown.title}**`);
    for (const line of shown.lines) {
        text.appendMarkdown("\n\n").appendText(line);
    }
    return text;
}
