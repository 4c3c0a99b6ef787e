// Serves one window on a Unix socket in $DG_HARNESS: a line with a JSON request, a line with its answer. Ghost text and
// drafts are not here: no extension can read them, the tests read them from the page.
const { createServer } = require("node:net");
const { join } = require("node:path");
const { createInterface } = require("node:readline");
const vscode = require("vscode");

const OPERATIONS = {
    process: () => process.pid,
    documents: () => vscode.workspace.textDocuments.map((document) => document.uri.fsPath),
    commands: async () => await vscode.commands.getCommands(true),
    open: async ({ path }) => {
        // As a user opens it: what an extension opens itself stays open for minutes after its tab is closed.
        await vscode.commands.executeCommand("vscode.open", vscode.Uri.file(path), { preview: false });
    },
    setting: ({ key }) => vscode.workspace.getConfiguration().get(key),
    active: () => vscode.window.activeTextEditor?.document.uri.fsPath,
    buffer,
    goTo: async ({ line, character }) => {
        const editor = active();
        const position = new vscode.Position(line, character);
        editor.selection = new vscode.Selection(position, position);
        editor.revealRange(editor.selection);
        // The cursor of the page follows later; a command of the page's own is carried out after that.
        await vscode.commands.executeCommand("setContext", "dg.harness", true);
        return buffer();
    },
    configure: async ({ settings }) => {
        for (const [key, value] of Object.entries(settings)) {
            await vscode.workspace.getConfiguration().update(key, value, vscode.ConfigurationTarget.Workspace);
        }
    },
    execute: async ({ command, args }) => await vscode.commands.executeCommand(command, ...args),
};

function active() {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined) {
        throw new Error("No editor is active.");
    }
    return editor;
}

function buffer() {
    const { document, selection, options } = active();
    return {
        path: document.uri.fsPath,
        text: document.getText(),
        isDirty: document.isDirty,
        line: selection.active.line,
        character: selection.active.character,
        tabSize: options.tabSize,
        insertSpaces: options.insertSpaces,
    };
}

async function answer(line) {
    try {
        const { operation, ...parameters } = JSON.parse(line);
        return { result: (await OPERATIONS[operation](parameters)) ?? null };
    } catch (error) {
        return { error: String(error) };
    }
}

exports.activate = (context) => {
    const server = createServer((socket) => {
        createInterface(socket).on("line", async (line) => {
            socket.write(`${JSON.stringify(await answer(line))}\n`);
        });
        socket.on("error", () => socket.destroy());
    });
    server.listen(join(process.env.DG_HARNESS, `${process.pid}.sock`));
    context.subscriptions.push({ dispose: () => server.close() });
};
