// Bundle the extension (`dist/extension.js`), or with `--test` its tests (`dist/test/*.js`).
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const common = { bundle: true, platform: "node", format: "cjs", target: "node18", logLevel: "warning" };

if (process.argv.includes("--test")) {
    rmSync("dist/test", { recursive: true, force: true });
    const entryPoints = readdirSync("test").map((name) => `test/${name}`);
    await build({ ...common, entryPoints, outdir: "dist/test", sourcemap: "inline" });
} else {
    await build({
        ...common,
        entryPoints: ["src/extension.ts"],
        outfile: "dist/extension.js",
        external: ["vscode"],
        minify: true,
        // vscode-languageclient's and its dependencies' licences stay with their code.
        legalComments: "eof",
    });
}
