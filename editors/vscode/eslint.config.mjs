import js from "@eslint/js";
import { defineConfig, globalIgnores } from "eslint/config";
import tseslint from "typescript-eslint";

export default defineConfig(
    globalIgnores(["dist/"]),
    js.configs.recommended,
    {
        files: ["src/**/*.ts", "test/**/*.ts"],
        extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
        languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
        rules: {
            "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
            // It asks for `!`, which another rule of the same set forbids.
            "@typescript-eslint/non-nullable-type-assertion-style": "off",
            complexity: ["error", 10],
            "max-lines": ["error", 400],
        },
    },
    {
        files: ["test/**/*.ts"],
        // node:test's own functions return promises that the runner waits for.
        rules: { "@typescript-eslint/no-floating-promises": "off" },
    },
    {
        files: ["scripts/*.mjs", "harness/*.js"],
        languageOptions: { globals: { exports: "writable", process: "readonly", require: "readonly" } },
    },
);
