import assert from "node:assert/strict";
import { test } from "node:test";
import { DELAYED, type Feature, type Register, type Registration, undelay, UNDELAYED } from "../src/undelayed";

const PROVIDER = { provideInlineCompletionItems: () => [] };
const OPTIONS = { documentSelector: [{ scheme: "file" }] };

/** What is registered with VS Code, and what was said, when a feature for `method` registers itself. */
function registrations(method: string, allowed: boolean): { alive: unknown[]; said: string[] } {
    const alive: unknown[] = [];
    const said: string[] = [];
    const register: Register = (_selector, _provider, metadata) => {
        if (metadata !== undefined && !allowed) {
            throw new Error("CANNOT use API proposal: inlineCompletionsAdditions");
        }
        const entry = metadata?.debounceDelayMs ?? "usual";
        alive.push(entry);
        return { dispose: () => void alive.splice(alive.indexOf(entry), 1) };
    };
    const feature = {
        registrationType: { method },
        registerLanguageProvider(options: typeof OPTIONS): [Registration, unknown] {
            return [register(options.documentSelector, PROVIDER), PROVIDER];
        },
    };
    undelay(feature as unknown as Feature, register, (message) => said.push(message));
    const [registration, provider] = feature.registerLanguageProvider(OPTIONS);
    assert.equal(provider, PROVIDER);
    const before = [...alive];
    registration.dispose();
    assert.deepEqual(alive, []);
    return { alive: before, said };
}

test("where proposed APIs are allowed VS Code asks without delay, once", () => {
    assert.deepEqual(registrations("textDocument/inlineCompletion", true), { alive: [0], said: [UNDELAYED] });
});

test("where they are not it asks as usual, and the log says so", () => {
    assert.deepEqual(registrations("textDocument/inlineCompletion", false), { alive: ["usual"], said: [DELAYED] });
});

test("other features are left alone", () => {
    assert.deepEqual(registrations("textDocument/hover", true), { alive: ["usual"], said: [] });
});
