//! JSON webhooks of others as events: templates that map a body, and signatures that say where it is from.
//!
//! A template is text with JSON pointers in braces, `customers.{/data/customer_id}`. Verification is of the raw body
//! and must come before the body is parsed. Time is an argument.

pub mod signature;
pub mod stripe;

use crate::model::message::Data;
use crate::proto::json::{Json, Kind, LoneSurrogate};
use crate::proto::json_pointer::{Pointer, PointerError};

/// The most pointers in one template.
pub const POINTERS_MAX: usize = 16;

/// A text with `{/json/pointer}`s into a webhook's body; `{{` is a brace, `{}` the whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Pointer(Pointer),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace that is not closed.
    #[error("{0:?} has a \"{{\" without its \"}}\"; write \"{{{{\" for the character itself")]
    Open(String),
    /// What stands in braces is no pointer.
    #[error(transparent)]
    Pointer(#[from] PointerError),
    /// More than [`POINTERS_MAX`].
    #[error("has more than {POINTERS_MAX} JSON pointers")]
    TooMany,
    /// No character at all.
    #[error("is empty")]
    Empty,
}

/// Why a body can't fill a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// Nothing is there.
    #[error("the body has nothing at {0}")]
    Missing(Box<str>),
    /// Something is there that has no text.
    #[error("the body has {} at {pointer}, where a string, number or boolean must be", .found.noun())]
    NoText {
        /// Where.
        pointer: Box<str>,
        /// What is there.
        found: Kind,
    },
    /// A string that is no text.
    #[error("the string at {pointer} {error}")]
    Surrogate {
        /// Where.
        pointer: Box<str>,
        /// Why.
        error: LoneSurrogate,
    },
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it is empty, a brace is not closed, or what stands in braces is no JSON pointer.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let (pointer, after) = after.split_once('}').ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Pointer(Pointer::parse(pointer)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        if parts.iter().filter(|part| matches!(part, Part::Pointer(_))).count() > POINTERS_MAX {
            return Err(TemplateError::TooMany);
        }
        Ok(Self { parts })
    }

    /// The text with each pointer's value in its place: a string's characters, a number or boolean as written.
    ///
    /// # Errors
    /// When there is nothing at a pointer, or null, an array or an object.
    pub fn text(&self, body: Json<'_>) -> Result<String, FillError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Pointer(pointer) => push_value(&mut out, pointer, body)?,
            }
        }
        Ok(out)
    }

    /// The data: of a template that is one pointer and nothing else the value itself, otherwise the text.
    ///
    /// # Errors
    /// When there is nothing at a pointer, or, between other text, null, an array or an object.
    pub fn data(&self, body: Json<'_>) -> Result<Data, FillError> {
        let [Part::Pointer(pointer)] = self.parts.as_slice() else { return Ok(Data::Text(self.text(body)?.into())) };
        whole(find(pointer, body)?, pointer.as_str())
    }
}

/// A whole body as data.
///
/// # Errors
/// When it is a string with half a surrogate pair.
pub fn body_data(body: Json<'_>) -> Result<Data, FillError> {
    whole(body, "")
}

fn whole(value: Json<'_>, pointer: &str) -> Result<Data, FillError> {
    match value.string() {
        Some(Ok(text)) => Ok(Data::Text(text.into())),
        Some(Err(error)) => Err(FillError::Surrogate { pointer: shown(pointer), error }),
        None => Ok(Data::Json(value.compact())),
    }
}

fn push_value(out: &mut String, pointer: &Pointer, body: Json<'_>) -> Result<(), FillError> {
    let value = find(pointer, body)?;
    match (value.string(), value.kind()) {
        (Some(Ok(text)), _) => out.push_str(&text),
        (Some(Err(error)), _) => return Err(FillError::Surrogate { pointer: shown(pointer.as_str()), error }),
        (None, Kind::Number | Kind::Bool) => out.push_str(value.as_str()),
        (None, found) => return Err(FillError::NoText { pointer: shown(pointer.as_str()), found }),
    }
    Ok(())
}

fn find<'a>(pointer: &Pointer, body: Json<'a>) -> Result<Json<'a>, FillError> {
    pointer.find(body).ok_or_else(|| FillError::Missing(shown(pointer.as_str())))
}

fn shown(pointer: &str) -> Box<str> {
    if pointer.is_empty() { "its top".into() } else { pointer.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &[u8] =
        br#"{"type": "order.paid", "data": { "customer_id": 42, "ok": true, "none": null, "half": "\ud800",
            "name": "caf\u00e9", "price": 1.50 }}"#;

    fn body() -> Json<'static> {
        Json::parse(BODY).expect("JSON")
    }

    #[track_caller]
    fn check_text(template: &str, expected: Result<&str, &str>) {
        let text = Template::parse(template).expect("a template").text(body()).map_err(|error| error.to_string());
        assert_eq!(text.as_deref().map_err(String::as_str), expected, "{template}");
    }

    #[track_caller]
    fn check_data(template: &str, expected: Data) {
        assert_eq!(Template::parse(template).expect("a template").data(body()), Ok(expected), "{template}");
    }

    #[test]
    fn pointers_become_their_values() {
        check_text("customers.{/data/customer_id}", Ok("customers.42"));
        check_text("{/type}", Ok("order.paid"));
        check_text("{/type}/{/data/name}-{/data/price}:{/data/ok}", Ok("order.paid/café-1.50:true"));
        check_text("plain", Ok("plain"));
        check_text("{{{/type}} {{x}", Ok("{order.paid} {x}"));
        check_text("{/missing}", Err("the body has nothing at /missing"));
        check_text("x{/data}", Err("the body has an object at /data, where a string, number or boolean must be"));
        check_text("x{/data/none}", Err("the body has null at /data/none, where a string, number or boolean must be"));
        check_text("{}", Err("the body has an object at its top, where a string, number or boolean must be"));
        check_text("{/data/half}", Err(&format!("the string at /data/half {LoneSurrogate}")));
    }

    #[test]
    fn one_pointer_alone_gives_the_value_itself() {
        check_data("{/data/name}", Data::Text("café".into()));
        check_data("{/data/price}", Data::Json("1.50".into()));
        check_data("{/data/none}", Data::Json("null".into()));
        check_data(" {/data/price}", Data::Text(" 1.50".into()));
        check_data("fixed", Data::Text("fixed".into()));
        let compact = r#"{"customer_id":42,"ok":true,"none":null,"half":"\ud800","name":"caf\u00e9","price":1.50}"#;
        check_data("{/data}", Data::Json(compact.into()));
        check_data("{}", Data::Json(format!(r#"{{"type":"order.paid","data":{compact}}}"#).into()));
        assert_eq!(body_data(Json::parse(b"\"x\"").expect("JSON")), Ok(Data::Text("x".into())));
    }

    #[test]
    fn bad_templates_are_refused() {
        let error = |text: &str| Template::parse(text).expect_err("an error").to_string();
        assert_eq!(error("a{/b"), "\"a{/b\" has a \"{\" without its \"}\"; write \"{{\" for the character itself");
        assert!(error("{type}").contains("it starts with \"/\""), "{}", error("{type}"));
        assert_eq!(error(""), "is empty");
        assert_eq!(Template::parse(&"{/a}".repeat(17)), Err(TemplateError::TooMany));
    }

    proptest! {
        #[test]
        fn any_template_is_read_or_refused(text in "[{}/a~01]{0,12}") {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.text(body());
                let _ = template.data(body());
            }
        }

        #[test]
        fn escaped_text_stands_for_itself(text in "[{}/a]{1,12}") {
            let template = Template::parse(&text.replace('{', "{{")).expect("a template");
            prop_assert_eq!(template.text(body()), Ok(text));
        }
    }
}
