import { spawn } from "node:child_process";
import * as vscode from "vscode";
import { setting } from "./configuration";
import { type Explanation, SERVER_COMMANDS } from "./protocol";
import type { Services } from "./services";

/** Say why nothing was offered in the active editor. */
export async function explain({ connection, log }: Services): Promise<void> {
    const document = vscode.window.activeTextEditor?.document;
    if (document === undefined) {
        void vscode.window.showInformationMessage("Open a file first: the answer is about its last completion.");
        return;
    }
    const inline = vscode.workspace.getConfiguration("editor", document).get<boolean>("inlineSuggest.enabled");
    if (inline === false) {
        void vscode.window.showInformationMessage("The editor's own setting editor.inlineSuggest.enabled is off.");
        return;
    }
    const uri = document.uri.toString();
    const { state, reason, running } = await connection.execute<Explanation>(SERVER_COMMANDS.explain, uri);
    const still = running > 0 ? ` Requests still running: ${running}.` : "";
    const chosen = await vscode.window.showInformationMessage(`${HEADS[state]} ${reason}${still}`, "Show Log");
    if (chosen !== undefined) {
        log.show();
    }
}

const HEADS: Record<Explanation["state"], string> = {
    offered: "A completion was offered.",
    nothing: "Nothing was offered.",
    failed: "The completion failed.",
};

/** Run the server's check-up, and show what it says. */
export async function doctor({ connection, log }: Services): Promise<void> {
    const { program, arguments: args } = connection.command();
    const model = setting("engine.model");
    const line = [...args, "doctor", ...(model === "" ? [] : ["--model", model])];
    const title = "dg-lsp doctor";
    const location = vscode.ProgressLocation.Window;
    const report = await vscode.window.withProgress({ location, title }, () => output(program, line));
    log.info(`${title}\n${report}`);
    const content = `${[program, ...line].join(" ")}\n\n${report}`;
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content }), { preview: true });
}

/** All that a program writes, whatever its exit status: the doctor's says only whether it found something. */
function output(program: string, args: string[]): Promise<string> {
    return new Promise((resolve, reject) => {
        const chunks: Buffer[] = [];
        const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
        for (const stream of [child.stdout, child.stderr]) {
            stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        }
        child.on("error", reject).on("close", () => {
            resolve(Buffer.concat(chunks).toString("utf8"));
        });
    });
}
