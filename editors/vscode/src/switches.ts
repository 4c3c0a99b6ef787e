import * as vscode from "vscode";
import { choose, chooseForLanguage, languageOfEditor, setting } from "./configuration";
import type { Services } from "./services";

const SNOOZES = [5, 15, 30, 60, 120];

/** Switch completions on or off for all languages. */
export async function toggle(): Promise<void> {
    await choose("enabled", !setting("enabled"));
}

/** Switch completions on or off for the language of the active editor. */
export async function toggleLanguage(): Promise<void> {
    const language = languageOfEditor();
    if (language === undefined) {
        void vscode.window.showInformationMessage("Open a file first: its language is what is switched.");
        return;
    }
    if (!setting("enabled")) {
        void vscode.window.showInformationMessage("Completions are off for all languages; switch them on first.");
        return;
    }
    await chooseForLanguage(language.name, "enabled", !language.enabled);
}

/** Watch completions crystallise, or stop that. */
export async function toggleDrafts(): Promise<void> {
    await choose("drafts", !setting("drafts"));
}

/** Pause automatic completions for some minutes: those given, or those picked. */
export async function snooze({ connection }: Services, minutes?: unknown): Promise<void> {
    const wanted = typeof minutes === "number" ? minutes : await pickMinutes(connection.isSnoozed);
    if (wanted !== undefined) {
        await connection.snooze(wanted);
    }
}

async function pickMinutes(isSnoozed: boolean): Promise<number | undefined> {
    const ends = isSnoozed ? [{ label: "$(bell) End the snooze", minutes: 0 }] : [];
    const items = [...ends, ...SNOOZES.map((minutes) => ({ label: `${minutes} minutes`, minutes }))];
    const placeHolder = "No automatic completions for how long? You can still ask for one.";
    return (await vscode.window.showQuickPick(items, { placeHolder }))?.minutes;
}
