//! JSON Patch (RFC 6902): a held JSON body, changed by what is published.

use serde_json::Value;

/// The most operations of a patch.
pub const OPERATIONS_MAX: usize = 1000;

/// Why a patch can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// No list of objects.
    #[error("it is no list of at most {OPERATIONS_MAX} operations")]
    Form,
    /// The held body.
    #[error("the held body is no JSON")]
    Body,
    /// An operation failed.
    #[error("operation {0} does not apply")]
    Operation(usize),
}

/// Applies `patch` to `body`, whole or not at all.
///
/// # Errors
/// When one of them is malformed, or an operation does not apply.
pub fn apply(body: &[u8], patch: &str) -> Result<Vec<u8>, PatchError> {
    let operations: Vec<Value> = serde_json::from_str(patch).map_err(|_| PatchError::Form)?;
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::Form);
    }
    let mut document: Value = serde_json::from_slice(body).map_err(|_| PatchError::Body)?;
    for (index, operation) in operations.iter().enumerate() {
        perform(&mut document, operation).ok_or(PatchError::Operation(index))?;
    }
    serde_json::to_vec(&document).map_err(|_| PatchError::Body)
}

/// Whether a JSON value looks like a patch.
pub fn is_patch(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.len() <= OPERATIONS_MAX && list.iter().all(Value::is_object))
}

fn perform(document: &mut Value, operation: &Value) -> Option<()> {
    let text = |name| operation.get(name).and_then(Value::as_str);
    let path = text("path")?;
    match text("op")? {
        "add" => add(document, path, operation.get("value")?.clone()),
        "remove" => remove(document, path).map(drop),
        "replace" => {
            *document.pointer_mut(path)? = operation.get("value")?.clone();
            Some(())
        }
        "move" => {
            let from = text("from")?;
            // A place can't move into itself (RFC 6902 §4.4).
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return None;
            }
            let value = remove(document, from)?;
            add(document, path, value)
        }
        "copy" => {
            let value = document.pointer(text("from")?)?.clone();
            add(document, path, value)
        }
        "test" => (document.pointer(path)? == operation.get("value")?).then_some(()),
        _ => None,
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *document = value;
        return Some(());
    }
    let (parent, name) = path.rsplit_once('/')?;
    match document.pointer_mut(parent)? {
        Value::Object(members) => {
            members.insert(unescape(name), value);
        }
        Value::Array(items) if name == "-" => items.push(value),
        Value::Array(items) => {
            let index = index(name).filter(|index| *index <= items.len())?;
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = path.rsplit_once('/')?;
    match document.pointer_mut(parent)? {
        Value::Object(members) => members.remove(&unescape(name)),
        Value::Array(items) => {
            let index = index(name).filter(|index| *index < items.len())?;
            Some(items.remove(index))
        }
        _ => None,
    }
}

fn index(name: &str) -> Option<usize> {
    let plain = name == "0" || !name.starts_with('0') && name.bytes().all(|b| b.is_ascii_digit());
    name.parse().ok().filter(|_| plain)
}

fn unescape(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(body: &str, patch: &str, expected: Result<&str, PatchError>) {
        let found = apply(body.as_bytes(), patch).map(|bytes| String::from_utf8(bytes).expect("text"));
        assert_eq!(found, expected.map(str::to_owned), "{body} {patch}");
    }

    #[test]
    fn operations_change_the_body() {
        check(r#"{"a":1}"#, r#"[{"op":"add","path":"/b","value":[2]}]"#, Ok(r#"{"a":1,"b":[2]}"#));
        check(
            r#"[1,3]"#,
            r#"[{"op":"add","path":"/1","value":2},{"op":"add","path":"/-","value":4}]"#,
            Ok("[1,2,3,4]"),
        );
        check(r#"{"a/b":1}"#, r#"[{"op":"replace","path":"/a~1b","value":2}]"#, Ok(r#"{"a/b":2}"#));
        check(r#"{"a":1,"b":2}"#, r#"[{"op":"remove","path":"/a"}]"#, Ok(r#"{"b":2}"#));
        check(r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":"/b"}]"#, Ok(r#"{"b":1}"#));
        check(r#"{"a":[1]}"#, r#"[{"op":"copy","from":"/a","path":"/a/0"}]"#, Ok(r#"{"a":[[1],1]}"#));
        check(r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":1},{"op":"add","path":"","value":0}]"#, Ok("0"));
    }

    #[test]
    fn what_does_not_apply_is_refused() {
        check("{}", r#"[{"op":"test","path":"/a","value":1}]"#, Err(PatchError::Operation(0)));
        check("[]", r#"[{"op":"add","path":"/1","value":1}]"#, Err(PatchError::Operation(0)));
        check("[1]", r#"[{"op":"remove","path":"/00"}]"#, Err(PatchError::Operation(0)));
        check("{}", r#"[{"op":"add","path":"/a","value":1},{"op":"x","path":""}]"#, Err(PatchError::Operation(1)));
        check(r#"{"a":{}}"#, r#"[{"op":"move","from":"/a","path":"/a/b"}]"#, Err(PatchError::Operation(0)));
        check("no", "[]", Err(PatchError::Body));
        check("{}", "{}", Err(PatchError::Form));
    }

    proptest! {
        #[test]
        fn any_operation_applies_or_is_refused(op in "add|remove|replace|move|copy|test", path in "(/[a0-2~-]{0,2}){0,3}", from in "(/[a0-2]{0,1}){0,2}") {
            let patch = serde_json::json!([{"op": op, "path": path, "from": from, "value": 1}]).to_string();
            let _ = apply(br#"{"a":[1,{"a":2}],"0":{"a":[]}}"#, &patch);
        }
    }
}
