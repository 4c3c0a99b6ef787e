import * as vscode from "vscode";
import { forServer, isEnabled, SECTION, type Values } from "./settings";

/** Of what documents are completed. */
export const SCHEMES: readonly string[] = ["file", "untitled"];

interface Manifest {
    contributes: { configuration: { properties: Record<string, { scope?: string }> }[] };
}

/** The settings that this extension itself reads or changes. Their defaults stand in `package.json`. */
interface Read {
    enabled: boolean;
    drafts: boolean;
    maxDenoisingSteps: number | null;
    "engine.model": string;
    "engine.adapter": string;
    "server.path": string;
    "server.arguments": string[];
    "server.package": string;
}

/** The settings that may stand in a language's block, such as `"[python]": { ... }`. */
function overridable(): string[] {
    const extension = vscode.extensions.getExtension<unknown>("dg-lsp.dg-lsp");
    const groups = (extension?.packageJSON as Manifest | undefined)?.contributes.configuration ?? [];
    return groups
        .flatMap((group) => Object.entries(group.properties))
        .filter(([, property]) => property.scope === "language-overridable")
        .map(([name]) => name.slice(SECTION.length + 1));
}

/** The section as the server takes it, from what VS Code answers to `workspace/configuration`. */
export function sectionForServer(section: unknown): Values {
    return forServer(typeof section === "object" && section !== null ? (section as Values) : {}, perLanguage());
}

function perLanguage(): Map<string, Values> {
    const found = new Map<string, Record<string, unknown>>();
    for (const key of overridable()) {
        for (const languageId of vscode.workspace.getConfiguration(SECTION).inspect(key)?.languageIds ?? []) {
            const value = inLanguageBlock(key, languageId);
            if (value !== undefined) {
                found.set(languageId, { ...found.get(languageId), [key]: value });
            }
        }
    }
    return found;
}

function inLanguageBlock(key: string, languageId: string): unknown {
    const values = vscode.workspace.getConfiguration(SECTION, { languageId }).inspect(key);
    return values?.workspaceFolderLanguageValue ?? values?.workspaceLanguageValue ?? values?.globalLanguageValue;
}

/** The document of the active editor, if it is one to complete: the log, for one, is not. */
export function documentOfEditor(): vscode.TextDocument | undefined {
    const document = vscode.window.activeTextEditor?.document;
    return document !== undefined && SCHEMES.includes(document.uri.scheme) ? document : undefined;
}

/** The language of the active editor, and whether completions are on for it. */
export function languageOfEditor(): { name: string; enabled: boolean } | undefined {
    const name = documentOfEditor()?.languageId;
    if (name === undefined) {
        return undefined;
    }
    const section = vscode.workspace.getConfiguration().get(SECTION);
    return { name, enabled: isEnabled(sectionForServer(section), name) };
}

/** A setting's value. As for the server, one that is null is not set. */
export function setting<K extends keyof Read>(key: K): Read[K] {
    const section = vscode.workspace.getConfiguration(SECTION);
    return (section.get(key) ?? section.inspect(key)?.defaultValue) as Read[K];
}

/** Change a setting where it is set now: in the workspace if it is set there, else for the user. */
export async function choose<K extends keyof Read>(key: K, value: Read[K] | undefined): Promise<void> {
    const configuration = vscode.workspace.getConfiguration(SECTION);
    await configuration.update(key, value, target(configuration.inspect(key)?.workspaceValue));
}

/** The same in a language's own block. */
export async function chooseForLanguage(languageId: string, key: keyof Read, value: unknown): Promise<void> {
    const configuration = vscode.workspace.getConfiguration(SECTION, { languageId });
    await configuration.update(key, value, target(configuration.inspect(key)?.workspaceLanguageValue), true);
}

function target(workspaceValue: unknown): vscode.ConfigurationTarget {
    return workspaceValue === undefined ? vscode.ConfigurationTarget.Global : vscode.ConfigurationTarget.Workspace;
}

/** Whether a change is about how the server is found and started. */
export function affectsServer(event: vscode.ConfigurationChangeEvent): boolean {
    return ["server.path", "server.arguments"].some((key) => event.affectsConfiguration(`${SECTION}.${key}`));
}
