import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { machineStartedMs } from "../common/machine.ts";
import { STATE } from "./launch.ts";
import {
  goneOwner,
  isCopy,
  isSameMachine,
  machineMark,
} from "./same_machine.ts";

Deno.test("a lock proves its owner gone on the machine and the file that it served alone", () => {
  const mark = "1700000000000 64:17";
  assert.ok(isSameMachine(mark, mark));
  // Its start is reckoned anew each time.
  assert.ok(isSameMachine(mark, "1700000001500 64:17"));
  assert.ok(!isSameMachine(mark, "1700000009000 64:17"), "started again");
  assert.ok(!isSameMachine(mark, "1700000000000 64:18"), "a copy of the file");
  assert.ok(!isSameMachine(mark, "1700000000000 65:17"), "another disk");
  for (const unknown of ["", "1700000000000"]) {
    assert.ok(!isSameMachine(unknown, mark), "not known then");
    assert.ok(!isSameMachine(mark, unknown), "not known now");
    assert.ok(!isSameMachine(unknown, unknown));
  }
});

Deno.test("a file that does not say where it was served proves nothing", () => {
  const state = new Map<string, string>([
    [STATE.url, "s3://b"],
    [STATE.owner, "a launch"],
  ]);
  const local = {
    databaseId: "id",
    version: 1,
    contentVersion: 1,
    state: (name: string) => state.get(name),
  };
  const mark = "1700000000000 64:17";
  assert.equal(goneOwner(local, "s3://b", mark), undefined);
  state.set(STATE.machine, mark);
  assert.equal(goneOwner(local, "s3://b", mark), "a launch");
  assert.equal(goneOwner(local, "s3://other", mark), undefined);
  assert.equal(goneOwner(local, "s3://b", ""), undefined);
  assert.equal(goneOwner(undefined, "s3://b", mark), undefined);
});

Deno.test("a file at another place than it was served from is a copy", () => {
  const state = new Map<string, string>([[STATE.url, "s3://b"]]);
  const local = {
    databaseId: "id",
    version: 1,
    contentVersion: 1,
    state: (name: string) => state.get(name),
  };
  const here = machineMark(undefined, "64:17");
  assert.ok(!isCopy(local, "s3://b", here), "it does not say where it was");
  state.set(STATE.machine, here);
  assert.ok(!isCopy(local, "s3://b", machineMark(1, "64:17")));
  assert.ok(isCopy(local, "s3://b", machineMark(undefined, "64:18")));
  assert.ok(!isCopy(local, "s3://other", machineMark(1, "64:18")));
  assert.ok(!isCopy(local, "s3://b", ""));
  assert.ok(!isCopy(undefined, "s3://b", here));
});

Deno.test("this machine is known again", () => {
  const mark = () => machineMark(machineStartedMs(systemClock), "64:17");
  assert.ok(isSameMachine(mark(), mark()));
  const unknown = machineMark(undefined, "64:17");
  assert.ok(!isSameMachine(unknown, unknown));
  assert.equal(machineMark(1, undefined), "");
});
