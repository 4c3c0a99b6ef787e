import { spawn } from "node:child_process";
import * as vscode from "vscode";
import { documentOfEditor, setting } from "./configuration";
import { type Explanation, SERVER_COMMANDS } from "./protocol";
import type { Services } from "./services";

/** Say why nothing was offered in the active editor. */
export async function explain({ connection, log }: Services): Promise<void> {
    const document = documentOfEditor();
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
export async function doctor({ connection, report }: Services): Promise<void> {
    const { program, arguments: args } = connection.command();
    const chosen = (["model", "adapter"] as const).map((name) => [`--${name}`, setting(`engine.${name}`)]);
    const line = [...args, "doctor", ...chosen.filter(([, value]) => value !== "").flat()];
    const title = "dg-lsp doctor";
    const location = vscode.ProgressLocation.Window;
    const said = await vscode.window.withProgress({ location, title }, () => output(program, line));
    await report.show(title, `${[program, ...line].join(" ")}\n\n${said}`);
}

/** All that a program writes, whatever its exit status: the doctor's says only whether it found something. */
function output(program: string, args: string[]): Promise<string> {
    return new Promise((resolve, reject) => {
        const chunks: Buffer[] = [];
        // Without a terminal it would take a narrow one and break its lines for that.
        const env = { ...process.env, COLUMNS: "160" };
        const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
        for (const stream of [child.stdout, child.stderr]) {
            stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        }
        child.on("error", reject).on("close", () => {
            resolve(Buffer.concat(chunks).toString("utf8"));
        });
    });
}
