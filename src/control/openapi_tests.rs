#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::*;
use crate::control::fake::{FakeService, entry, row};
use crate::mapi::MapiCode;
use crate::session::QueueRowState;

fn described() -> Value {
    serde_json::to_value(description()).unwrap()
}

/// `UPDATE_OPENAPI=1 cargo test --lib openapi` writes the file anew.
#[test]
fn the_committed_description_is_that_of_the_code() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let text = serde_json::to_string_pretty(&description()).unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(committed == text, "docs/openapi.json is old; run the test with UPDATE_OPENAPI=1");
}

/// The routes as they stand in the source, because a router does not list them.
fn routes() -> BTreeSet<(String, String)> {
    let source = include_str!("routes/mod.rs");
    let router = source.split("pub(super) fn router(").nth(1).unwrap();
    let router = router.split(".fallback(").next().unwrap();
    let routes = router.split(".route(").skip(1).map(|route| {
        let path = route.split('"').nth(1).unwrap();
        let method = route.split(", ").nth(1).unwrap().split('(').next().unwrap();
        (path.to_owned(), method.to_owned())
    });
    routes.collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let mut in_description = BTreeSet::new();
    for (path, methods) in described()["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            in_description.insert((path.clone(), method.clone()));
        }
    }
    assert!(in_description.len() >= 20, "{in_description:?}");
    assert_eq!(routes(), in_description);
}

/// What the description says about the answer of an operation, ready to be compared with.
fn validator(operation: &Value, status: &str, kind: &str) -> jsonschema::Validator {
    let schema = &operation["responses"][status]["content"][kind]["schema"];
    assert!(schema.is_object(), "no schema for {status} {kind}: {operation}");
    let mut whole = schema.clone();
    whole["components"] = described()["components"].clone();
    jsonschema::validator_for(&whole).unwrap()
}

async fn ask(fake: FakeService, method: &str, path: &str, body: &str) -> (u16, String, Vec<u8>) {
    let router = super::super::routes::router(Arc::new(fake));
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let answer = TowerToHyperService::new(router).call(request).await.unwrap();
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes().to_vec();
    (status, kind.unwrap_or_default(), bytes)
}

fn fake() -> FakeService {
    let rows = vec![row(1, QueueRowState::Deferred), row(2, QueueRowState::InDoubt)];
    let mut fake = FakeService { damaged: true, ..FakeService::with_rows(rows) };
    fake.contents.insert(entry(1).to_string(), b"Subject: x\r\n\r\n".to_vec());
    fake
}

fn body_of(path: &str) -> String {
    match path {
        "/v1/messages" => json!({ "props": {}, "recipients": [] }).to_string(),
        "/v1/messages/raw" => {
            let envelope = json!({ "from": null, "recipients": ["a@b.c"],
                                   "recipients_from_header": false });
            format!("{envelope}\nSubject: x\r\n\r\n")
        }
        "/v1/trace" => json!({ "id": entry(1).to_string() }).to_string(),
        "/v1/notify" => {
            json!({ "transport": null, "flags": 1, "reference": null, "entry": null }).to_string()
        }
        "/v1/flush" => json!({ "upload": true, "download": false }).to_string(),
        "/v1/fsck" => json!({ "mode": "look" }).to_string(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn answers_are_what_the_description_says() {
    for (path, methods) in described()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let real = path.replace("{id}", &entry(1).to_string());
            let (status, kind, bytes) =
                ask(fake(), &method.to_uppercase(), &real, &body_of(path)).await;
            let what = format!("{method} {path}: {}", String::from_utf8_lossy(&bytes));
            assert!(matches!(status, 200 | 204), "{status} {what}");
            if status == 204 {
                assert!(operation["responses"]["204"].is_object() && bytes.is_empty(), "{what}");
                continue;
            }
            let kind = kind.split(';').next().unwrap();
            let documents: Vec<Value> = match kind {
                "application/json" => vec![serde_json::from_slice(&bytes).unwrap()],
                "application/x-ndjson" => {
                    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
                }
                _ => vec![Value::String(String::from_utf8(bytes).unwrap())],
            };
            assert!(!documents.is_empty(), "{what}");
            let validator = validator(operation, "200", kind);
            for document in documents {
                if let Err(error) = validator.validate(&document) {
                    panic!("{what}: {error} at {}", error.instance_path());
                }
            }
        }
    }
}

#[tokio::test]
async fn errors_are_what_the_description_says() {
    let described = described();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if path == "/openapi.json" {
                continue;
            }
            let fake = FakeService::failing(MapiCode::NOT_FOUND, "it is gone");
            let real = path.replace("{id}", &entry(1).to_string());
            let (status, kind, bytes) =
                ask(fake, &method.to_uppercase(), &real, &body_of(path)).await;
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((status, kind.as_str()), (404, "application/json"), "{method} {path}");
            assert_eq!(document["name"], "MAPI_E_NOT_FOUND");
            let validator = validator(operation, "default", "application/json");
            assert!(validator.is_valid(&document), "{method} {path}: {document}");
        }
    }
}

#[test]
fn the_schemas_would_notice_a_change() {
    let described = described();
    let operation = &described["paths"]["/v1/status"]["get"];
    let validator = validator(operation, "200", "application/json");
    let mut report = serde_json::to_value(FakeService::default().report()).unwrap();
    assert!(validator.is_valid(&report));
    report["rows"][0]["type"] = json!("carrier pigeon");
    assert!(!validator.is_valid(&report));
}
