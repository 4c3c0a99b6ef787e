import * as vscode from "vscode";

const SCHEME = "dg-lsp";

/** A document to read, which asks no one to save it. */
export class Report implements vscode.TextDocumentContentProvider, vscode.Disposable {
    readonly #changed = new vscode.EventEmitter<vscode.Uri>();
    readonly #registration = vscode.workspace.registerTextDocumentContentProvider(SCHEME, this);
    #text = "";

    readonly onDidChange = this.#changed.event;

    provideTextDocumentContent(): string {
        return this.#text;
    }

    /** Show a text in place of the one before. */
    async show(name: string, text: string): Promise<void> {
        const uri = vscode.Uri.from({ scheme: SCHEME, path: name });
        this.#text = text;
        this.#changed.fire(uri);
        await vscode.window.showTextDocument(uri);
    }

    dispose(): void {
        vscode.Disposable.from(this.#changed, this.#registration).dispose();
    }
}
