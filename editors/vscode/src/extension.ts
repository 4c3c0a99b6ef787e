import { join } from "node:path";
import * as vscode from "vscode";
import { MENU, registerCommands } from "./commands";
import { affectsServer } from "./configuration";
import { Connection } from "./connection";
import { DraftPreview } from "./draftPreview";
import { offerInstallation } from "./installCommand";
import { Report } from "./report";
import { StatusBar } from "./statusBar";

let connection: Connection | undefined;

/** Start the server, and show what it offers and how it is. */
export async function activate(context: vscode.ExtensionContext): Promise<void> {
    const environment = join(context.globalStorageUri.fsPath, "server");
    const log = vscode.window.createOutputChannel("dg-lsp", { log: true });
    const status = new StatusBar(MENU);
    const report = new Report();
    const drafts = new DraftPreview();
    const server = new Connection(environment, log, status, drafts);
    connection = server;
    const services = { connection: server, status, log, report, environment };
    context.subscriptions.push(
        log,
        status,
        drafts,
        report,
        registerCommands(services),
        vscode.workspace.onDidChangeConfiguration((event) => {
            if (affectsServer(event)) {
                void server.restart();
            }
        }),
        vscode.workspace.onDidGrantWorkspaceTrust(() => {
            // Settings of the workspace that name programs count from now on.
            void server.restart();
        }),
    );
    await server.restart();
    void offerInstallation(services, context.globalState);
}

export async function deactivate(): Promise<void> {
    await connection?.stop();
}
