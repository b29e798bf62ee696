extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn any_valid() -> impl Strategy<Value = Patience> {
    Patience::PARAMETERS.map(|Parameter { least, most, .. }| least..=most).prop_map(Patience::from_values)
}

/// The default, but for the parameter number `n`.
fn with(n: usize, value: u32) -> Patience {
    let mut values = Patience::DEFAULT.values();
    values[n] = value;
    Patience::from_values(values)
}

proptest! {
    #[test]
    fn what_is_shown_is_read(patience in any_valid()) {
        prop_assert_eq!(patience.to_string().parse(), Ok(patience));
    }

    #[test]
    fn order_spaces_and_what_is_left_out_do_not_matter(patience in any_valid(), n in 0..Patience::COUNT, m in 0..Patience::COUNT) {
        let item = |n: usize| alloc::format!("{} = {}", Patience::PARAMETERS[n].name, patience.values()[n]);
        let mut values = Patience::DEFAULT.values();
        values[n] = patience.values()[n];
        values[m] = patience.values()[m];
        let text = if n == m { item(n) } else { alloc::format!(" {} , {}", item(m), item(n)) };
        prop_assert_eq!(text.parse(), Ok(Patience::from_values(values)));
    }

    #[test]
    fn any_text_is_read_or_refused_on_one_line(text in r"(\PC|[a-z_=, 0-9\n]){0,60}") {
        match text.parse::<Patience>() {
            Ok(patience) => prop_assert_eq!(patience.validate(), Ok(())),
            Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1),
        }
    }
}

#[test]
fn the_default_is_valid_and_what_an_empty_text_says() {
    assert_eq!(Patience::DEFAULT.validate(), Ok(()));
    for text in ["", " "] {
        assert_eq!(text.parse(), Ok(Patience::DEFAULT));
    }
}

#[test]
fn each_parameter_has_a_field_a_setter_and_a_range() {
    for (n, &Parameter { name, least, most }) in Patience::PARAMETERS.iter().enumerate() {
        assert_eq!(alloc::format!("{name}={least}").parse(), Ok(with(n, least)));
        assert_eq!(alloc::format!("{name}={most}").parse(), Ok(with(n, most)));
        let outside: Vec<u32> = [least.checked_sub(1), most.checked_add(1)].into_iter().flatten().collect();
        assert!(!outside.is_empty());
        for value in outside {
            let error = OutOfRange { what: name, value, least, most };
            assert_eq!(with(n, value).validate(), Err(error));
            assert_eq!(alloc::format!("{name}={value}").parse::<Patience>(), Err(ParseError::OutOfRange(error)));
            let text = error.to_string();
            assert!([value, least, most].iter().all(|number| text.contains(&number.to_string())), "{text}");
        }
    }
    let set = Patience::DEFAULT.spin(1).yields(2).lane(3).ask_after(4).poll(5).nap(6).nap_behind(7).turns(8);
    let (spin, yields, lane, ask_after, poll, nap, nap_behind, turns) = (1, 2, 3, 4, 5, 6, 7, 8);
    assert_eq!(set, Patience { spin, yields, lane, ask_after, poll, nap, nap_behind, turns });
}

#[test]
fn what_is_wrong_is_named() {
    let error = |text: &str| text.parse::<Patience>().expect_err(text);
    assert_eq!(error("spni=3"), ParseError::Unknown("spni".into()));
    assert_eq!(error("spin=3,"), ParseError::NoValue("".into()));
    assert_eq!(error("spin"), ParseError::NoValue("spin".into()));
    assert_eq!(error("spin=3,lane=4,spin=3"), ParseError::Repeated { what: "spin" });
    for value in ["", "x", "-1", "1.5", "300ns", "4294967296", "1=2"] {
        let text = String::from("nap=") + value;
        assert_eq!(error(&text), ParseError::NotANumber { what: "nap", value: value.into() });
    }
    assert!(error("spni=3").to_string().ends_with("spin yields lane ask_after poll nap nap_behind turns"));
}

#[test]
fn an_excerpt_is_cut_between_characters_and_stays_on_its_line() {
    let long = "ä".repeat(20);
    let excerpt = Excerpt::from(&*long);
    assert_eq!(excerpt.as_str(), "ä".repeat(12));
    assert_eq!(excerpt.to_string(), "ä".repeat(12) + "...");
    // An odd number of bytes before: 24 is in the middle of a character.
    assert_eq!(Excerpt::from(&*(String::from("a") + &long)).as_str(), String::from("a") + &"ä".repeat(11));
    assert_eq!(Excerpt::from("a\nb").to_string(), "a\\nb");
    assert_eq!(Excerpt::from("24 bytes, neither more n").to_string(), "24 bytes, neither more n");
}
