import * as vscode from "vscode";
import { onOneLine, type Stretch } from "./drafts";
import type { DraftNote, Position } from "./protocol";

/** A place in one version of one document: a draft that was made for another is stale. */
interface Place {
    uri: string;
    version: number;
    position: Position;
}

const COLOURS: Record<Stretch["kind"], vscode.ThemeColor> = {
    settled: new vscode.ThemeColor("dgLsp.settledDraft"),
    unsettled: new vscode.ThemeColor("dgLsp.unsettledDraft"),
    more: new vscode.ThemeColor("dgLsp.unsettledDraft"),
};

/** Shows a completion while it crystallises: from its first draft until its request ends or the cursor moves. */
export class DraftPreview implements vscode.Disposable {
    readonly #decoration = vscode.window.createTextEditorDecorationType({
        rangeBehavior: vscode.DecorationRangeBehavior.ClosedClosed,
    });
    readonly #listeners = [
        vscode.workspace.onDidChangeTextDocument(() => {
            this.#clearIfStale();
        }),
        vscode.window.onDidChangeTextEditorSelection(() => {
            this.#clearIfStale();
        }),
    ];
    /** What is being asked for; a draft of anything else is not shown. */
    readonly #asked = new Set<Place>();
    /** Where the editor shows ghost text, if it still does: a draft beside it would be one text too many. */
    #offered: Place | undefined;
    #shown: { editor: vscode.TextEditor; place: Place } | undefined;

    /** Run one request; drafts are shown for it until it ends. */
    async during<T>(document: vscode.TextDocument, at: vscode.Position, ask: () => Promise<T>): Promise<T> {
        const place = { uri: document.uri.toString(), version: document.version, position: at };
        this.#asked.add(place);
        try {
            const answer = await ask();
            this.#offered = answer ? place : undefined;
            return answer;
        } finally {
            this.#asked.delete(place);
            if (this.#shown !== undefined && isSame(this.#shown.place, place)) {
                this.clear();
            }
        }
    }

    show(note: DraftNote): void {
        const editor = vscode.window.activeTextEditor;
        const place = {
            uri: vscode.Uri.parse(note.textDocument.uri).toString(),
            version: note.textDocument.version,
            position: note.position,
        };
        if (editor === undefined || !this.#isWanted(place) || !isAtCursor(place, editor)) {
            return;
        }
        if (this.#shown !== undefined && this.#shown.editor !== editor) {
            this.clear();
        }
        this.#shown = { editor, place };
        editor.setDecorations(this.#decoration, decorations(editor.selection.active, onOneLine(note.pieces)));
    }

    clear(): void {
        this.#shown?.editor.setDecorations(this.#decoration, []);
        this.#shown = undefined;
    }

    dispose(): void {
        vscode.Disposable.from(this.#decoration, ...this.#listeners).dispose();
    }

    #isWanted(place: Place): boolean {
        const isShownAlready = this.#offered !== undefined && isSame(this.#offered, place);
        return !isShownAlready && [...this.#asked].some((asked) => isSame(asked, place));
    }

    #clearIfStale(): void {
        if (this.#shown !== undefined && !isAtCursor(this.#shown.place, this.#shown.editor)) {
            this.clear();
        }
    }
}

function decorations(position: vscode.Position, stretches: Stretch[]): vscode.DecorationOptions[] {
    return stretches.map(({ text, kind }) => ({
        range: new vscode.Range(position, position),
        renderOptions: { after: { contentText: text, color: COLOURS[kind], fontStyle: "italic" } },
    }));
}

function isAtCursor(place: Place, editor: vscode.TextEditor): boolean {
    const document = editor.document;
    const here = { uri: document.uri.toString(), version: document.version, position: editor.selection.active };
    return isSame(place, here);
}

function isSame(one: Place, other: Place): boolean {
    return (
        one.uri === other.uri &&
        one.version === other.version &&
        one.position.line === other.position.line &&
        one.position.character === other.position.character
    );
}
