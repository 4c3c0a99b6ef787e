/** What is wrong with a number of denoising steps that was typed in; `undefined` if nothing is. */
export function stepsProblem(text: string): string | undefined {
    return /^[1-9]\d{0,3}$/.test(text.trim()) ? undefined : "A whole number from 1 to 9999.";
}
