import * as vscode from "vscode";
import { setting } from "./configuration";
import { install, InstallError } from "./install";
import type { Services } from "./services";
import type { Status } from "./state";

const ASKED = "dg-lsp.askedToInstall";

/** Install the server into an environment of the extension's own, with progress, and start it. */
export async function installServer(services: Services): Promise<void> {
    if (!vscode.workspace.isTrusted) {
        void vscode.window.showWarningMessage("dg-lsp is installed only from a trusted workspace.");
        return;
    }
    const { log, status, connection } = services;
    if (status.shown.state === "installing") {
        void vscode.window.showInformationMessage("dg-lsp is being installed already.");
        return;
    }
    const installing: Status = { state: "installing", message: "The server is being installed." };
    try {
        const program = await status.during(installing, () => installWithProgress(services));
        log.info(`Installed ${program}`);
    } catch (error) {
        await showFailure(error, services);
        return;
    }
    await connection.restart();
}

function installWithProgress({ log, environment }: Services): Thenable<string> {
    return vscode.window.withProgress(
        { location: vscode.ProgressLocation.Notification, title: "Installing dg-lsp", cancellable: true },
        async (progress, token) => {
            const abort = new AbortController();
            token.onCancellationRequested(() => {
                abort.abort();
            });
            return install({
                environment,
                package: setting("server.package"),
                searchPath: process.env["PATH"] ?? "",
                report: (line) => {
                    log.info(line);
                    progress.report({ message: line });
                },
                signal: abort.signal,
            });
        },
    );
}

async function showFailure(error: unknown, { log }: Services): Promise<void> {
    if (!(error instanceof InstallError)) {
        throw error;
    }
    log.error(`${error.message}\n${error.details}`);
    if (error.remedy === "") {
        return;
    }
    const actions = ["Open Settings", "Show Log"] as const;
    const chosen = await vscode.window.showErrorMessage(`${error.message} ${error.remedy}`, ...actions);
    if (chosen === "Open Settings") {
        await openServerSettings();
    } else if (chosen === "Show Log") {
        log.show();
    }
}

export async function openServerSettings(): Promise<void> {
    await vscode.commands.executeCommand("workbench.action.openSettings", "dg.server");
}

/** Ask once, ever, whether to install a missing server; the status bar item offers it from then on. */
export async function offerInstallation(services: Services, memory: vscode.Memento): Promise<void> {
    if (services.connection.find() !== "missing" || memory.get<boolean>(ASKED) === true) {
        return;
    }
    await memory.update(ASKED, true);
    const actions = ["Install", "Open Settings"] as const;
    const question = "dg-lsp needs its language server, which was not found. Install it for this extension alone?";
    const chosen = await vscode.window.showInformationMessage(question, ...actions);
    if (chosen === "Install") {
        await installServer(services);
    } else if (chosen === "Open Settings") {
        await openServerSettings();
    }
}
