/** `host:port`, as `--addr` takes it. */
import { UsageError } from "../common/errors.ts";

export interface Address {
  /** A name or an IP address, IPv6 without its brackets. */
  hostname: string;
  /** 0 to 65535; 0 takes any free port. */
  port: number;
}

/** @throws UsageError */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^\s:\/[\]@]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new UsageError(
      `--addr needs a host and a port, such as 127.0.0.1:4512 or [::1]:4512, but got '${text}'.`,
    );
  }
  return { hostname: match[1] ?? match[2], port };
}

export function formatAddress({ hostname, port }: Address): string {
  return hostname.includes(":")
    ? `[${hostname}]:${port}`
    : `${hostname}:${port}`;
}

/**
 * The address at which a program on the same machine reaches a server that
 * listens there: a wildcard is not an address to connect to.
 */
export function loopbackOf(address: Address): Address {
  if (address.hostname === "0.0.0.0") {
    return { ...address, hostname: "127.0.0.1" };
  }
  if (address.hostname === "::") return { ...address, hostname: "::1" };
  return address;
}
