import assert from "node:assert/strict";
import { permissions, type Surroundings } from "../common/permission_list.ts";
import { type Place, placePermissions } from "./place_permissions.ts";

type Variables = Record<string, string>;

const KEYS = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" };
const HOME = { HOME: "/home/a" };

function around(env: Variables, files: Variables = {}): Surroundings {
  return {
    env: (name) => env[name],
    readText: (path) => files[path],
    realPath: (path) => files[path] ?? path,
  };
}

/** Hosts and files of an S3 or a GCS, without the variables. */
function needs(place: Place, env: Variables, files?: Variables) {
  const { net, read, write, sys } = placePermissions(
    place,
    "write",
    around(env, files),
  );
  assert.deepEqual(write, []);
  return { net, read, sys };
}

function s3(env: Variables, files?: Variables, url = "s3://bucket/app") {
  const { sys, ...rest } = needs({ url }, { ...HOME, ...env }, files);
  assert.deepEqual(sys, ["osRelease"]);
  return rest;
}

Deno.test("a folder is read, and written where the command writes", () => {
  const place = { url: "file:///a%20b/c#1" };
  assert.deepEqual(
    placePermissions(place, "read", around({})),
    permissions({ read: ["/a b/c#1"] }),
  );
  assert.deepEqual(
    placePermissions(place, "write", around({})),
    permissions({ read: ["/a b/c#1"], write: ["/a b/c#1"] }),
  );
  // By a link, and by the folder that it leads to.
  assert.deepEqual(
    placePermissions(
      { url: "file:///link" },
      "read",
      around({}, { "/link": "/real" }),
    ),
    permissions({ read: ["/link", "/real"] }),
  );
});

Deno.test("S3: with keys in the environment, its host and nothing else", () => {
  const region = { ...KEYS, AWS_REGION: "eu-west-1" };
  for (
    const [place, env, host] of [
      [
        { url: "s3://b/x", s3Endpoint: "http://localhost:9000" },
        KEYS,
        "localhost:9000",
      ],
      [{ url: "s3://b", s3Endpoint: "https://[::1]" }, KEYS, "[::1]:443"],
      [{ url: "s3://b/x" }, region, "b.s3.eu-west-1.amazonaws.com:443"],
      [{ url: "s3://b.c/x" }, region, "s3.eu-west-1.amazonaws.com:443"],
      [
        { url: "s3://b/x" },
        { ...KEYS, AWS_REGION: "cn-north-1" },
        "b.s3.cn-north-1.amazonaws.com.cn:443",
      ],
      [
        { url: "s3://b/x" },
        {
          ...region,
          AWS_USE_FIPS_ENDPOINT: "true",
          AWS_USE_DUALSTACK_ENDPOINT: "true",
        },
        "b.s3-fips.dualstack.eu-west-1.amazonaws.com:443",
      ],
    ] as [Place, Variables, string][]
  ) {
    assert.deepEqual(needs(place, { ...HOME, ...env }), {
      net: [host],
      read: [],
      sys: ["osRelease"],
    });
  }
});

Deno.test("S3: the keys of a MinIO in development need no chain", () => {
  const s3Credentials = {};
  assert.deepEqual(
    needs({
      url: "s3://b",
      s3Endpoint: "http://localhost:9000",
      s3Credentials,
    }, HOME).net,
    ["localhost:9000"],
  );
});

Deno.test("S3: the hosts and files of the credentials that will be used, and of no others", () => {
  const config = "/home/a/.aws/config";
  const credentials = "/home/a/.aws/credentials";
  const files = [config, credentials];
  const bucket = "bucket.s3.eu-west-1.amazonaws.com:443";
  const sts = "sts.eu-west-1.amazonaws.com:443";
  const region = { AWS_REGION: "eu-west-1" };
  const keys = "aws_access_key_id = id\naws_secret_access_key = secret\n";

  // The machine's own account (EC2).
  assert.deepEqual(s3(region), {
    net: [bucket, "169.254.169.254:80"],
    read: files,
  });
  assert.deepEqual(
    s3({ ...region, AWS_EC2_METADATA_DISABLED: "true" }).net,
    [bucket],
  );
  // The container's (ECS, EKS).
  assert.deepEqual(
    s3({ ...region, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/x" }).net,
    [bucket, "169.254.170.2:80"],
  );
  assert.deepEqual(
    s3({
      ...region,
      AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://169.254.170.23/v1",
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: "/run/token",
    }),
    {
      net: [bucket, "169.254.170.23:80"],
      read: [...files, "/run/token"],
    },
  );
  // Web identity (EKS).
  assert.deepEqual(
    s3({
      ...region,
      AWS_WEB_IDENTITY_TOKEN_FILE: "/run/token",
      AWS_ROLE_ARN: "arn:aws:iam::1:role/a",
    }),
    { net: [bucket, sts], read: [...files, "/run/token"] },
  );
  // The shared profile, which names the region too.
  assert.deepEqual(
    s3({}, {
      [config]: "[default]\nregion=eu-west-1\n",
      [credentials]: `[default]\n${keys}`,
    }),
    { net: [bucket], read: files },
  );
  assert.deepEqual(
    s3({ AWS_PROFILE: "work", ...KEYS }, {
      [config]:
        "[default]\nregion = us-east-1\n[profile work]\nregion = eu-west-1\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = default\n",
      [credentials]: `[default]\n${keys}`,
    }),
    { net: [bucket, sts], read: files },
  );
  assert.deepEqual(
    s3(
      { ...region, AWS_CONFIG_FILE: "/c", AWS_SHARED_CREDENTIALS_FILE: "/d" },
      {
        "/d": `[default]\n${keys}`,
      },
    ).read,
    ["/c", "/d"],
  );
  // Keys by the environment, the region by the profile.
  assert.deepEqual(s3(KEYS, { [config]: "[default]\nregion=eu-west-1" }), {
    net: [bucket],
    read: files,
  });
});

Deno.test("GCS: an emulator gets no credentials, Google its own chain", () => {
  const url = "gs://bucket/app";
  const storage = "storage.googleapis.com:443";
  assert.deepEqual(
    placePermissions(
      { url, gcsEndpoint: "http://localhost:4443" },
      "write",
      around(HOME),
    ),
    permissions({
      net: ["localhost:4443"],
      env: ["GOOGLE_SDK_NODE_LOGGING"],
    }),
  );
  // A key file, found in either way.
  const found = "/home/a/.config/gcloud/application_default_credentials.json";
  const key = '{"type":"service_account"}';
  for (
    const [env, path] of [
      [{ GOOGLE_APPLICATION_CREDENTIALS: "/key.json" }, "/key.json"],
      [{}, found],
      [
        { CLOUDSDK_CONFIG: "/gcloud" },
        "/gcloud/application_default_credentials.json",
      ],
    ] as [Variables, string][]
  ) {
    assert.deepEqual(needs({ url }, { ...HOME, ...env }, { [path]: key }), {
      net: [storage, "oauth2.googleapis.com:443"],
      read: [path],
      sys: [],
    });
  }
  // Credentials of another provider, which Google exchanges.
  assert.deepEqual(
    needs({ url }, { GOOGLE_APPLICATION_CREDENTIALS: "/key.json" }, {
      "/key.json": JSON.stringify({
        type: "external_account",
        token_url: "https://sts.googleapis.com/v1/token",
        service_account_impersonation_url:
          "https://iamcredentials.googleapis.com/v1/x",
        credential_source: { file: "/run/token" },
      }),
    }),
    {
      net: [
        storage,
        "oauth2.googleapis.com:443",
        "sts.googleapis.com:443",
        "iamcredentials.googleapis.com:443",
      ],
      read: ["/key.json", "/run/token"],
      sys: [],
    },
  );
  // The machine's own account.
  assert.deepEqual(needs({ url }, HOME), {
    net: [storage, "169.254.169.254:80", "metadata.google.internal.:80"],
    read: [found],
    sys: ["networkInterfaces"],
  });
  assert.deepEqual(
    needs({ url }, { ...HOME, HTTPS_PROXY: "http://proxy:3128" }).net[1],
    "proxy:3128",
  );
});
