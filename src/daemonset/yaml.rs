//! Objects as YAML, in the style of `kubectl get -o yaml`.

use serde_json::Value;

/// Documents, with `---` before each but the first.
pub fn documents(objects: &[Value]) -> String {
    let texts: Vec<String> = objects
        .iter()
        .map(|object| {
            let mut text = String::new();
            write(object, 0, &mut text);
            text
        })
        .collect();
    texts.join("---\n")
}

/// A map or list as lines, indented by so many columns.
fn write(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                out.push_str(&pad);
                out.push_str(&scalar(&Value::String(key.clone())));
                out.push(':');
                match value {
                    Value::Array(items) if !items.is_empty() => {
                        out.push('\n');
                        write(value, indent, out);
                    }
                    Value::Object(fields) if !fields.is_empty() => {
                        out.push('\n');
                        write(value, indent + 2, out);
                    }
                    other => {
                        out.push(' ');
                        out.push_str(&scalar(other));
                        out.push('\n');
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut text = String::new();
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        write(item, indent + 2, &mut text)
                    }
                    Value::Array(items) if !items.is_empty() => write(item, indent + 2, &mut text),
                    other => text = format!("{pad}  {}\n", scalar(other)),
                }
                out.push_str(&pad);
                out.push_str("- ");
                // The first line stands behind the dash.
                out.push_str(&text[indent + 2..]);
            }
        }
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

/// A value on one line. Text is quoted, as JSON does it, unless it cannot be taken for anything else.
fn scalar(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| is_word(c) || c == ':')
        && !text.ends_with(':');
    let is_taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    // `1e3` and dates begin with digits; `.inf` and `.nan` with a dot.
    match is_plain && !is_taken {
        true => text.clone(),
        false => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let object = json!({
            "a": {"b": [], "c": {}, "d": null, "list": [1, "two", {"x": 1, "y": [true, [3, 4]]}, []]},
            "words": ["yes", "No", "1e3", "-", "a: b", "a:", "", "100%", "tab\there", "ü", "reg.example:5000/app:v1", "#no"],
            "app.kubernetes.io/name": "prepull",
            "n": -1,
        });
        let text = documents(std::slice::from_ref(&object));
        let read: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read, object, "{text}");
    }
}
