//! A report: one HTML file that needs nothing else, no script, no font, no image.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::style::RGBColor;

const STYLE: &str = include_str!("page.css");

/// The whole page around its body.
pub(crate) fn page(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
    .into_string()
}

/// A name and the colour of its curve.
pub(crate) fn swatch(RGBColor(r, g, b): RGBColor, name: &str) -> Markup {
    html! { span { i style=(format!("background:rgb({r},{g},{b})")) {} (name) } }
}
