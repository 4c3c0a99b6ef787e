import type * as vscode from "vscode";
import type { DynamicFeature, StaticFeature } from "vscode-languageclient";

export type Feature = StaticFeature | DynamicFeature<unknown>;

/** `registerInlineCompletionItemProvider` with what the proposed API `inlineCompletionsAdditions` adds. */
export type Register = (
    selector: vscode.DocumentSelector,
    provider: vscode.InlineCompletionItemProvider,
    metadata?: { debounceDelayMs: number },
) => Registration;

/** What undoes a registration. */
export interface Registration {
    dispose(): unknown;
}

/** What a feature for one kind of request has, of which the language client's types show a part. */
interface ProviderFeature {
    registrationType: { method: string };
    registerLanguageProvider(options: {
        documentSelector: vscode.DocumentSelector;
    }): [Registration, vscode.InlineCompletionItemProvider];
}

export const UNDELAYED = "VS Code asks for ghost text at once after a key.";
export const DELAYED =
    "VS Code waits 50 ms after a key before it asks for ghost text, as this extension may not use the proposed API " +
    "inlineCompletionsAdditions.";

/**
 * Have VS Code ask at once instead of 50 ms after each key, where the user lets this extension use proposed APIs. The
 * server's work begins with the key either way.
 */
export function undelay(feature: Feature, registered: Register, told: (message: string) => void): void {
    if (!isForInlineCompletion(feature)) {
        return;
    }
    const usual = feature.registerLanguageProvider.bind(feature);
    feature.registerLanguageProvider = (options) => {
        const [delayed, provider] = usual(options);
        try {
            const undelayed = registered(options.documentSelector, provider, { debounceDelayMs: 0 });
            delayed.dispose();
            told(UNDELAYED);
            return [undelayed, provider];
        } catch {
            told(DELAYED);
            return [delayed, provider];
        }
    };
}

function isForInlineCompletion(feature: Feature): feature is Feature & ProviderFeature {
    return "registrationType" in feature && feature.registrationType.method === "textDocument/inlineCompletion";
}
