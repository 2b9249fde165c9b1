/** Members of the JSON that a manifest is, each with its type checked. */

export function record(value: unknown, name: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null) {
    return value as Record<string, unknown>;
  }
  throw new Error(`${name} is no object`);
}

export function string(value: unknown, name: string): string {
  if (typeof value !== "string") throw new Error(`${name} is no text`);
  return value;
}

/** A manifest from before there was such a member has none. */
export function optional<K extends string>(name: K, value: unknown) {
  if (value === undefined) return {};
  const text = value === null ? null : string(value, name);
  return { [name]: text } as Partial<Record<K, string | null>>;
}

export function whole(value: unknown, name: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw new Error(`${name} is no whole number`);
  }
  return value as number;
}

export function list(value: unknown, name: string): Record<string, unknown>[] {
  if (!Array.isArray(value)) throw new Error(`${name} is no list`);
  return value;
}

/** A manifest from before there were such names has none. */
export function names(value: unknown, name: string): string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new Error(`${name} is no list`);
  return value.map((item) => string(item, name));
}

/** From its 20 digits. */
export function version(value: unknown, name: string): number {
  if (typeof value !== "string" || !/^[0-9a-f]{16}0000$/.test(value)) {
    throw new Error(`${name} is no versionstamp`);
  }
  return Number(BigInt(`0x${value.slice(0, 16)}`));
}
