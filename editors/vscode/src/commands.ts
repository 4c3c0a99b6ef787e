import * as vscode from "vscode";
import { languageOfEditor, setting } from "./configuration";
import { NotRunning } from "./connection";
import { doctor, explain } from "./diagnosis";
import { installServer, openServerSettings } from "./installCommand";
import { pickModel, pickSteps } from "./pickers";
import { SERVER_COMMANDS } from "./protocol";
import type { Services } from "./services";
import { snooze, toggle, toggleDrafts, toggleLanguage } from "./switches";

export const MENU = "dg-lsp.menu";

type Action = (services: Services, argument?: unknown) => Promise<void> | void;

const ACTIONS: Readonly<Record<string, Action>> = {
    [MENU]: menu,
    "dg-lsp.trigger": () => void vscode.commands.executeCommand("editor.action.inlineSuggest.trigger"),
    "dg-lsp.toggle": toggle,
    "dg-lsp.toggleLanguage": toggleLanguage,
    "dg-lsp.toggleDrafts": toggleDrafts,
    "dg-lsp.snooze": snooze,
    "dg-lsp.pickModel": pickModel,
    "dg-lsp.pickSteps": pickSteps,
    "dg-lsp.explain": explain,
    "dg-lsp.doctor": doctor,
    "dg-lsp.showLog": ({ log }) => {
        log.show();
    },
    "dg-lsp.restart": ({ connection }) => connection.restart(),
    "dg-lsp.restartEngine": restartEngine,
    "dg-lsp.install": installServer,
    "dg-lsp.openSettings": () =>
        void vscode.commands.executeCommand("workbench.action.openSettings", "@ext:dg-lsp.dg-lsp"),
};

/** Make all commands of `package.json` work; without a server they say so. */
export function registerCommands(services: Services): vscode.Disposable {
    const commands = Object.entries(ACTIONS).map(([name, action]) =>
        vscode.commands.registerCommand(name, async (argument?: unknown) => {
            try {
                await action(services, argument);
            } catch (error) {
                if (!(error instanceof NotRunning)) {
                    throw error;
                }
                await offerHelp(error, services);
            }
        }),
    );
    return vscode.Disposable.from(...commands);
}

async function offerHelp(error: NotRunning, services: Services): Promise<void> {
    const help: Record<string, () => Promise<void>> =
        services.connection.find() === "missing"
            ? { Install: () => installServer(services), "Open Settings": openServerSettings }
            : { Restart: () => services.connection.restart(), "Open Settings": openServerSettings };
    const chosen = await vscode.window.showWarningMessage(error.message, ...Object.keys(help));
    await help[chosen ?? ""]?.();
}

async function restartEngine({ connection }: Services): Promise<void> {
    const location = vscode.ProgressLocation.Window;
    const outcome = await vscode.window.withProgress({ location, title: "Restarting the engine" }, () =>
        connection.execute<string>(SERVER_COMMANDS.restartEngine),
    );
    void vscode.window.showInformationMessage(outcome);
}

/** What a click on the status bar item offers: what helps in this state first, then the switches. */
async function menu({ status }: Services): Promise<void> {
    const picked = await vscode.window.showQuickPick(entries(status.shown.state), {
        placeHolder: status.shown.message,
    });
    if (picked !== undefined) {
        await vscode.commands.executeCommand(picked.command);
    }
}

function entries(state: string): { label: string; command: string }[] {
    const language = languageOfEditor();
    const isOn = setting("enabled");
    const repairs = [
        { label: "$(cloud-download) Install the server", command: "dg-lsp.install", states: ["missing"] },
        { label: "$(debug-restart) Restart the server", command: "dg-lsp.restart", states: ["stopped"] },
        { label: "$(debug-restart) Restart the engine", command: "dg-lsp.restartEngine", states: ["error"] },
    ];
    return [
        ...repairs.filter(({ states }) => states.includes(state)),
        { label: `$(power) Switch ${isOn ? "off" : "on"}`, command: "dg-lsp.toggle" },
        ...(isOn && language !== undefined
            ? [
                  {
                      label: `$(code) Switch ${language.enabled ? "off" : "on"} for ${language.name}`,
                      command: "dg-lsp.toggleLanguage",
                  },
              ]
            : []),
        { label: "$(bell-slash) Snooze…", command: "dg-lsp.snooze" },
        { label: "$(question) Why was nothing offered?", command: "dg-lsp.explain" },
        { label: "$(hubot) Choose the model…", command: "dg-lsp.pickModel" },
        { label: "$(dashboard) Choose the denoising steps…", command: "dg-lsp.pickSteps" },
        {
            label: setting("drafts") ? "$(eye-closed) Hide drafts" : "$(eye) Watch completions crystallise",
            command: "dg-lsp.toggleDrafts",
        },
        { label: "$(pulse) Run the doctor", command: "dg-lsp.doctor" },
        { label: "$(output) Show the log", command: "dg-lsp.showLog" },
        { label: "$(gear) Settings", command: "dg-lsp.openSettings" },
    ];
}
