use super::*;

#[track_caller]
fn check_value(condition: &str, expected: u8) {
    let config = [("CONFIG_A", "y"), ("CONFIG_M", "m"), ("CONFIG_S", "\"s\"")];
    let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(evaluate(condition, &config), expected, "{condition}");
}

#[test]
fn evaluates_conditions_to_three_values() {
    check_value("A", 2);
    check_value("B", 0);
    check_value("A && M", 1);
    check_value("!M || B", 1);
    check_value("A && (B || !C)", 2);
    check_value("A=y && !B", 2);
    check_value("A != y", 0);
    check_value("M=n || A", 2);
    check_value("$(cc-option,-mx (y)) && A", 2);
    check_value("GCC_VERSION >= 50000", 2);
    check_value("", 2);
}

#[test]
fn explains_unmet_dependencies() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "Kconfig",
        "source \"arch/$(SRCARCH)/Kconfig\"\nif OUTER\nsource \"sub/Kconfig\"\nendif\n",
    );
    write(
        "arch/x86/Kconfig",
        "config X86\n\tdef_bool y\n\thelp\n\t  depends on nothing\n\nconfig B\n\tbool \"b\"\n",
    );
    write(
        "sub/Kconfig",
        "menu \"m\"\n\tdepends on X86\nconfig A\n\ttristate \"a\"\n\tdepends on B && \\\n\t\tX86\n\tselect C\n\
             config D\n\tbool \"d\"\nendmenu\nconfig E\n\tbool \"e\"\n",
    );
    let kconfig = Kconfig::read(dir.path());
    let config = settings(&["X86"]);
    assert_eq!(kconfig.why_not("NONE", "y", &config), "this kernel has no such option");
    let why = kconfig.why_not("A", "y", &config);
    assert_eq!(why, "needs `OUTER` (here OUTER=n) and `B && X86` (here B=n, X86=y)");
    let why = kconfig.why_not("D", "y", &settings(&["OUTER"]));
    assert_eq!(why, "needs `X86` (here X86=n)");
    let why = kconfig.why_not("E", "y", &settings(&["OUTER"]));
    assert!(why.contains("something else") && why.contains("E=n"), "{why}");
}

/// Checks why an option of a file is not `wanted` with options that are on, as in `A B=m`.
#[track_caller]
fn check_why(text: &str, name: &str, wanted: &str, config: &str, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Kconfig"), text).unwrap();
    let setting = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or((word, "y"));
        (format!("CONFIG_{name}"), value.to_owned())
    };
    let config = config.split_whitespace().map(setting).collect();
    assert_eq!(Kconfig::read(dir.path()).why_not(name, wanted, &config), expected);
}

#[test]
fn applies_the_condition_of_a_prompt() {
    let text = "config A\n\tbool \"what if it is\" if EXPERT\n\tdepends on B\n\tdefault y\n";
    let only = "can be asked for only under `EXPERT` (here EXPERT=n)";
    check_why(text, "A", "y", "B", only);
    check_why(text, "A", "y", "", &format!("needs `B` (here B=n), and {only}"));
    let off = "its default turns it on; it can be turned off only under `EXPERT` (here EXPERT=n)";
    check_why(text, "A", "n", "A B", off);
    let own_line = "config A\n\tbool\n\tprompt 'a' if EXPERT\n";
    check_why(own_line, "A", "y", "", only);
    // Two places: at one of them it can be asked for.
    let two = format!("{text}config A\n\tbool \"a\"\n\tdepends on C\n");
    check_why(&two, "A", "y", "", "needs `C` (here C=n)");
}

#[test]
fn hides_options_of_invisible_menus() {
    let text = "menu \"m\"\n\tvisible if EXPERT\n\nconfig A\n\tbool \"a\"\n\n\
            comment \"not for you\"\n\tdepends on OTHER\n\nconfig B\n\tbool \"b\"\nendmenu\n";
    check_why(text, "A", "y", "", "can be asked for only under `EXPERT` (here EXPERT=n)");
    check_why(text, "B", "y", "", "can be asked for only under `EXPERT` (here EXPERT=n)");
    let conditional = "config A\n\tbool \"a\"\n\tdepends on B if C\n";
    check_why(conditional, "A", "y", "C", "needs `!(C) || (B)` (here C=y, B=n)");
}

#[test]
fn explains_what_sets_an_option_without_a_prompt() {
    let text = "config A\n\tbool\n\tdepends on D\nconfig B\n\tbool \"b\"\n\tselect A if C\n";
    let no_prompt = "it can't be asked for, having no prompt:";
    check_why(text, "A", "y", "D", &format!("{no_prompt} it is selected by B"));
    let needs = "it is selected by B; it needs `D` (here D=n)";
    check_why(text, "A", "y", "", &format!("{no_prompt} {needs}"));
    let text = "config A\n\tdef_bool B && !C\n";
    check_why(text, "A", "y", "", &format!("{no_prompt} its default is `B && !C`"));
    check_why("config A\n\tbool\n", "A", "y", "", &format!("{no_prompt} nothing selects it"));
    let elsewhere = "config Z\n\tbool\n\tdepends on ARM\n\tselect A\n";
    let many: String = ('B'..='H').map(|by| format!("config {by}\n\tbool\n\tselect A\n")).collect();
    let by = "it is selected by B, C, D, E, F and 3 more";
    let text = format!("config A\n\tbool\n{elsewhere}{many}");
    check_why(&text, "A", "y", "", &format!("{no_prompt} {by}"));
}

#[test]
fn limits_an_option_to_a_module_by_its_dependency() {
    let text = "config A\n\ttristate \"a\"\n\tdepends on M && B\n";
    let limited = "needs `M && B` (here M=m, B=y) as y, not only as m";
    check_why(text, "A", "y", "A=m M=m B", limited);
    let text = text.replace("tristate", "bool");
    check_why(&text, "A", "m", "M=m B", "it is built in or not at all: y or n");
    let text = "config A\n\ttristate \"a\"\n";
    check_why(text, "A", "m", "A", "another option turns it on");
    check_why(text, "A", "m", "", "needs `MODULES` (here MODULES=n)");
    let text = "config A\n\ttristate \"a\"\n\tdepends on m\n";
    check_why(text, "A", "y", "A=m", "needs `m` as y, not only as m");
}

#[test]
fn explains_what_keeps_an_option_on() {
    let text = "config A\n\tbool \"a\"\nconfig B\n\tbool \"b\"\n\tselect A if X\n\
            config C\n\tbool \"c\"\n\tselect A if Y\nconfig D\n\tbool \"d\"\n\tselect A\n";
    // C's condition does not hold, and D is off.
    check_why(text, "A", "n", "A B C X", "selected by B");
    check_why("config A\n\tdef_bool y\n", "A", "n", "A", "it has no prompt: its default is `y`");
    let choice = "choice\n\tprompt \"c\" if EXPERT\n\tdefault A\nconfig A\n\tbool \"a\"\n\
            config B\n\tbool \"b\"\nendchoice\n";
    check_why(choice, "A", "n", "A", "it is what is taken of a choice: ask for B instead");
    check_why(choice, "B", "y", "A EXPERT", "it is one of a choice, of which A is taken");
    check_why(choice, "B", "y", "A", "can be asked for only under `EXPERT` (here EXPERT=n)");
}

fn settings(on: &[&str]) -> BTreeMap<String, String> {
    on.iter().map(|name| (format!("CONFIG_{name}"), "y".to_owned())).collect()
}
