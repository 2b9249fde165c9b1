/** The permission lines of the documents are those that the launcher gives. */
import assert from "node:assert/strict";
import { permissionFlags } from "../src/common/permission_list.ts";
import {
  type Place,
  placePermissions,
} from "../src/object_store/place_permissions.ts";

const ROOT = new URL("../", import.meta.url);

type Variables = Record<string, string>;

const S3 = { url: "s3://bucket/app" };
const KEYS = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" };
const REGION = { AWS_REGION: "eu-west-1" };
const GS = { url: "gs://bucket/app" };

/** As the rows are called there. `$HOME` is the home folder's name. */
const ROWS: [string, Place, Variables, Variables?][] = [
  ["`file:///folder` (1)", { url: "file:///folder" }, {}],
  [
    "`s3://` with an endpoint, keys in the environment",
    { ...S3, s3Endpoint: "http://localhost:9000" },
    KEYS,
  ],
  ["`s3://` on Amazon, the same", S3, { ...KEYS, ...REGION }],
  [
    "`s3://` on Amazon, shared profile",
    S3,
    REGION,
    { "$HOME/.aws/credentials": "[default]\naws_access_key_id = id" },
  ],
  ["`s3://` on Amazon, role of the instance (EC2)", S3, REGION],
  [
    "`s3://` on Amazon, role of the container (ECS)",
    S3,
    { ...REGION, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/" },
  ],
  [
    "`s3://` on Amazon, web identity (EKS)",
    S3,
    { ...REGION, AWS_ROLE_ARN: "a", AWS_WEB_IDENTITY_TOKEN_FILE: "/token" },
  ],
  ["`gs://`, an emulator", { ...GS, gcsEndpoint: "http://localhost:4443" }, {}],
  ["`gs://`, key file", GS, { GOOGLE_APPLICATION_CREDENTIALS: "/key.json" }],
  ["`gs://`, the machine's account", GS, {}],
];

Deno.test("docs/object-stores.md names the permissions that the launcher gives", async () => {
  const page = await Deno.readTextFile(new URL("docs/object-stores.md", ROOT));
  const rows = new Map(
    page.split("\n").filter((line) => line.startsWith("|"))
      .map((line) => line.split("|").map((cell) => cell.trim()))
      .map(([, name, flags]) => [name, flags]),
  );
  const expected = ROWS.map(([name, place, env, files = {}]) => {
    const list = placePermissions(place, "write", {
      env: (variable) => ({ HOME: "$HOME", ...env })[variable],
      readText: (path) => files[path],
      realPath: (path) => path,
    });
    return [name, `\`${permissionFlags(list).join(" ")}\``];
  });
  assert.deepEqual(
    expected.map(([name]) => [name, rows.get(name)]),
    expected,
    `out of date; the rows are\n${
      expected.map(([name, flags]) => `| ${name} | ${flags} |`).join("\n")
    }`,
  );
});
