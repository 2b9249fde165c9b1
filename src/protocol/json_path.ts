/**
 * Where in a JSON document a reader or writer is: names and indexes, and how
 * they are written as a JSON pointer (RFC 6901). Going in and out is cheap;
 * each part of a pointer is spelled out once, and only when it is asked for.
 */
export class JsonPath {
  readonly #tokens: (string | number)[] = [];
  /** The pointer along the first tokens, by how many these are. */
  readonly #pointers = [""];

  /** How many names and indexes lead here. */
  get length(): number {
    return this.#tokens.length;
  }

  push(token: string | number): void {
    this.#tokens.push(token);
  }

  pop(): void {
    if (this.#pointers.length > this.#tokens.length) this.#pointers.pop();
    this.#tokens.pop();
  }

  /** The pointer along the first `length` names and indexes. */
  pointer(length: number): string {
    const pointers = this.#pointers;
    for (let i = pointers.length; i <= length; i++) {
      pointers.push(`${pointers[i - 1]}/${escaped(this.#tokens[i - 1])}`);
    }
    return pointers[length];
  }
}

function escaped(token: string | number): string | number {
  return typeof token === "string" && /[~/]/.test(token)
    ? token.replaceAll("~", "~0").replaceAll("/", "~1")
    : token;
}
