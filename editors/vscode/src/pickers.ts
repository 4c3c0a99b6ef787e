import * as vscode from "vscode";
import { choose, setting } from "./configuration";
import { type Model, SERVER_COMMANDS } from "./protocol";
import type { Services } from "./services";
import { stepsProblem } from "./steps";

const BROWSE = "$(folder-opened) Browse for a folder…";
const OTHER = "$(edit) Another number…";
const STEPS = [4, 8, 16, 32, 64];

type Choice = vscode.QuickPickItem & { model?: string };

/** Choose the model among those that the server knows, or any folder with a checkpoint. */
export async function pickModel({ connection }: Services): Promise<void> {
    const models = await connection.execute<Model[]>(SERVER_COMMANDS.models);
    const items: Choice[] = models.map(({ name, model, description, current }) => ({
        label: `${current ? "$(check) " : ""}${name}`,
        detail: description,
        model,
    }));
    const separator: Choice = { label: "", kind: vscode.QuickPickItemKind.Separator };
    const picked = await vscode.window.showQuickPick<Choice>([...items, separator, { label: BROWSE }], {
        placeHolder: "Which model completes?",
        matchOnDetail: true,
    });
    const model = picked?.label === BROWSE ? await browse() : picked?.model;
    if (model !== undefined) {
        await choose("engine.model", model);
    }
}

async function browse(): Promise<string | undefined> {
    const folders = await vscode.window.showOpenDialog({
        canSelectFiles: false,
        canSelectFolders: true,
        openLabel: "Use This Model",
        title: "A folder with config.json, tokenizer.json and *.safetensors",
    });
    return folders?.[0]?.fsPath;
}

/** Choose how many denoising steps a completion may take: the dial between speed and quality. */
export async function pickSteps(): Promise<void> {
    const current = setting("maxDenoisingSteps");
    const mark = (steps: number | null) => (steps === current ? "$(check) " : "");
    const items = [
        { label: `${mark(null)}The model's own`, steps: null },
        ...STEPS.map((steps) => ({ label: `${mark(steps)}${steps}`, steps })),
        { label: OTHER, steps: null },
    ];
    const placeHolder = "Denoising steps at most: more are slower and better";
    const picked = await vscode.window.showQuickPick(items, { placeHolder });
    const steps = picked?.label === OTHER ? await askSteps(current) : picked?.steps;
    if (steps !== undefined) {
        await choose("maxDenoisingSteps", steps ?? undefined);
    }
}

async function askSteps(current: number | null): Promise<number | undefined> {
    const answer = await vscode.window.showInputBox({
        prompt: "Denoising steps at most",
        value: String(current ?? 16),
        validateInput: stepsProblem,
    });
    return answer === undefined ? undefined : Number(answer);
}
