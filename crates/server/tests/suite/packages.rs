//! Package managers install from an index that the list allows, and say what is missing where it does not.

use serde_json::{Value, json};

use crate::network::Scene;

const PIP: &str = r#"
import subprocess, sys, time
began = time.monotonic()
done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check",
    "--index-url", "https://allowed.test:{HTTPS_PORT}/simple", "--cert", "ca.pem",
    "--target", "/workspace/site", "hello-enclave"], capture_output=True, text=True)
sys.path.insert(0, "/workspace/site")
try:
    from hello_enclave import GREETING
except ImportError:
    GREETING = "not installed"
enclave.result({"greeting": GREETING, "said": (done.stdout + done.stderr)[-3000:], "seconds": int(time.monotonic() - began)})
"#;

/// What people type, and no word of a proxy.
const NPM: &str = r#"
const { spawnSync } = require("node:child_process");
const began = Date.now();
const done = spawnSync("npm", ["install", "hello-enclave", "--no-audit", "--no-fund",
    "--registry", "https://allowed.test:{HTTPS_PORT}/", "--cafile", "ca.pem"], { encoding: "utf8" });
let greeting = "not installed";
try {
    greeting = require("/workspace/node_modules/hello-enclave").GREETING;
} catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
}
enclave.result({ greeting, said: (done.stdout + done.stderr).slice(-3000), seconds: (Date.now() - began) / 1000 });
"#;

/// Runs one with the index on its list, and with something else on it.
async fn installs(test: &str, language: &str, code: &str) {
    let Some(scene) = Scene::on_gvisor(test).await else { return };
    let request = |domain: &str| {
        json!({
            "code": code, "language": language,
            "files": [{"path": "ca.pem", "content": scene.world.ca_pem}],
            "egress": {"mode": "allowlist", "allow": [{"domain": domain}]},
            "limits": {"cpu": 2.0},
        })
    };
    let told = |result: wire::SessionResult| -> Value { result.value().unwrap_or_else(|| panic!("{result:#?}")) };
    let with = told(scene.run(request("allowed.test")).await);
    assert_eq!(with["greeting"], "installed", "{}", with["said"]);
    let without = scene.run(request("elsewhere.test")).await;
    let allowed_by: Vec<_> = without.denials.iter().filter_map(|denial| denial.allowed_by.clone()).collect();
    assert!(allowed_by.iter().any(|rule| rule.contains("allowed.test")), "{:#?}", without.denials);
    let without = told(without);
    assert_eq!(without["greeting"], "not installed");
    let said = without["said"].as_str().unwrap();
    assert!(said.contains("no entry of egress.allow names allowed.test"), "{said}");
    assert!(without["seconds"].as_f64().unwrap() < 30.0, "{without:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_through_an_allowlist_and_names_the_missing_rule_without_it() {
    installs("pip_installs_through_an_allowlist_and_names_the_missing_rule_without_it", "python", PIP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_installs_through_an_allowlist_and_names_the_missing_rule_without_it() {
    installs("npm_installs_through_an_allowlist_and_names_the_missing_rule_without_it", "node", NPM).await;
}
