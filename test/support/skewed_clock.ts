/**
 * A machine whose clock is wrong: loaded before a server, it moves its wall
 * clock by TEST_CLOCK_SKEW_MS. Deadlines count on the monotonic clock, which
 * is no machine's to set.
 */
const skewMs = Number(Deno.env.get("TEST_CLOCK_SKEW_MS"));
const now = Date.now;
Date.now = () => now() + skewMs;
