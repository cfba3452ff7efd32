//! The rules: names, weights, defaults and patterns. How they are run is in `rules.rs`.
//!
//! In a pattern a blank stands for one to four bytes that are no letters or digits (with a count
//! of its own, `{0,2}` or `?`, for that many); letters match in either case. A pattern is tried
//! only near one of its cues, so each match must contain a cue, and is bounded in length.

use crate::report::{
    Action::{self, Allow, Block, Flag, Redact},
    Kind::{
        self, Combined, Control, Exfiltration, Extraction, Hidden, Jailbreak, Limit, Override,
        Secret, Unicode,
    },
    Severity::{self, Critical, High, Low, Medium},
};

/// One rule of the fixed set.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) severity: Severity,
    /// The balanced policy for what a caller writes.
    pub(crate) user: Action,
    /// The balanced policy for tool output and documents.
    pub(crate) foreign: Action,
    pub(crate) cues: &'static [&'static str],
    pub(crate) pattern: &'static str,
}

// Rules that code finds, not a pattern.
pub(crate) const CONTROL: usize = 0;
pub(crate) const INVISIBLE: usize = 1;
pub(crate) const BIDI: usize = 2;
pub(crate) const TAG: usize = 3;
pub(crate) const VARIATION: usize = 4;
pub(crate) const NONCHARACTER: usize = 5;
pub(crate) const PRIVATE_USE: usize = 6;
pub(crate) const COMBINING: usize = 7;
pub(crate) const PAYLOAD: usize = 8;
pub(crate) const BITS: usize = 9;
pub(crate) const PROMPT_LENGTH: usize = 10;
pub(crate) const UNSETTLED: usize = 11;
pub(crate) const SEVERAL: usize = 12;

const fn built_in(name: &'static str, kind: Kind, severity: Severity, action: Action) -> Rule {
    Rule {
        name,
        kind,
        severity,
        user: action,
        foreign: action,
        cues: &[],
        pattern: "",
    }
}

const fn rule(
    name: &'static str,
    kind: Kind,
    severity: Severity,
    (user, foreign): (Action, Action),
    cues: &'static [&'static str],
    pattern: &'static str,
) -> Rule {
    Rule {
        name,
        kind,
        severity,
        user,
        foreign,
        cues,
        pattern,
    }
}

/// Verbs that set instructions aside.
macro_rules! aside {
    () => { r"\b(?:ignor(?:e[ds]?|ing)|disregard(?:ing|s|ed)?|forget(?:ting)?|overrid(?:e|es|ing)|overrule|bypass(?:ing)?|neglect|discard(?:ing)?|dismiss|erase|supersede|do not (?:follow|obey)|don.{0,3}t (?:follow|obey|listen to)|stop (?:following|obeying)|no longer (?:follow|obey)|pay no attention to|never mind|set aside|abandon|unlearn)" };
}
/// Verbs that ask for something to be said.
macro_rules! tell {
    () => { r"\b(?:reveal|show|print|repeat|output|tell|give|display|leak|disclose|expose|share|send|write|provide|return|recite|reproduce|dump|list|spell|say|state|describe|summari[sz]e|translate|encode|paste|echo|copy|what(?: is| are| was| were|.{0,3}s))\b" };
}

/// Every rule. The order of the first ones is that of the constants above.
#[rustfmt::skip]
pub(crate) static RULES: &[Rule] = &[
    built_in("unicode.control", Unicode, Low, Redact),
    built_in("unicode.invisible", Unicode, Low, Redact),
    built_in("unicode.bidi", Unicode, Medium, Redact),
    built_in("unicode.tag", Unicode, Medium, Redact),
    built_in("unicode.variation", Unicode, Low, Redact),
    built_in("unicode.noncharacter", Unicode, Low, Redact),
    built_in("unicode.private_use", Unicode, Low, Flag),
    built_in("unicode.combining", Unicode, Low, Flag),
    built_in("hidden.payload", Hidden, Critical, Block),
    built_in("hidden.bits", Hidden, High, Flag),
    built_in("limit.prompt_length", Limit, High, Block),
    built_in("limit.unsettled", Limit, High, Block),
    built_in("combined.several", Combined, Critical, Block),

    // ── Set your instructions aside ──────────────────────────────────────────────────────────
    rule("override.ignore_instructions", Override, Critical, (Block, Block),
        &["ctions", "prompt", "directive", "guideline", "command", "programming", "rules",
          "constraint", "restriction", "polic", "protocol", "training", "guardrail", "safeguard"],
        concat!(aside!(), r"(?:(?: (?:absolutely|completely|entirely|about|of|the|my|these|those|this|that|and|or|in|what|me|to|literally|all|any|every|each|everything|please|now)){0,5} (?:previous|previously|prior|above|preceding|earlier|former|foregoing|past|your|system|initial|original)(?: (?:previous|prior|above|preceding|earlier|and|or|given|system|initial|original|own|internal|hidden|safety|ethical|content|other|set|the|of|your|all|to|chat|developer|current|existing)){0,5} (?:instructions?|inst[a-z]{0,3}ctions?|prompts?|directives?|directions|guidelines?|commands?|programming)\b|(?: (?:absolutely|completely|about|of|the|and|or|literally)){0,3} (?:all|any|every)(?: (?:of|the|other|and|your|my|these|those)){0,3} (?:instructions|inst[a-z]{0,3}ctions|directives|guidelines|prompts)\b|(?: (?:about|all|any|of|literally|and)){0,3} your(?: (?:own|previous|prior|initial|original|safety|ethical|content|internal|existing|and)){0,3} (?:rules?|constraints?|restrictions?|polic(?:y|ies)|protocols?|training|guardrails?|safeguards?|safety measures?)\b)")),
    rule("override.instructions_above", Override, Critical, (Block, Block),
        &["ignor", "disregard", "forget", "overrid", "bypass", "neglect", "discard", "follow", "obey",
          "attention", "erase", "abandon", "dismiss", "unlearn"],
        concat!(aside!(), r"(?: [a-z']{1,12}){0,4} (?:instructions?|prompts?|directions?|directives?|rules?|guidelines?|commands?|orders)(?: [a-z']{1,12}){0,4}? (?:above|before|beforehand|earlier|previously|so far|up to now|until now|prior|until this point|you (?:were|have been|had been|got|received|have received))\b")),
    rule("override.set_aside", Override, High, (Flag, Flag),
        &["ctions", "prompt", "directi", "guideline", "rule", "command", "programming",
          "constraint", "restriction", "orders", "protocol", "polic", "training", "guardrail",
          "safeguard", "safety"],
        concat!(aside!(), r"(?: (?:absolutely|completely|entirely|about|of|the|my|our|any|these|those|this|that|and|or|in|what|everything|me|to|literally)){0,4} (?:all|any|every|your|previous|previously|prior|above|preceding|earlier|former|foregoing|past|initial|original|existing|system|safety)(?: [a-z0-9']{1,14}){0,4}? (?:instructions?|inst[a-z]{0,3}ctions?|prompts?|directives?|directions?|guidelines?|rules?|commands?|programming|constraints?|restrictions?|orders|protocols?|polic(?:y|ies)|training|guardrails?|safeguards?|safety measures?)\b")),
    rule("override.forget_everything", Override, High, (Flag, Flag),
        &["forget", "ignor", "disregard", "overrid", "discard", "dismiss", "erase", "neglect"],
        concat!(aside!(), r"(?: (?:about|of|the|please|now|literally|absolutely))? (?:everything|all|anything|whatever|what|the (?:above|previous|preceding|former|prior|last|first)|(?:any |all )?(?:previous|prior|above|preceding|earlier))(?: [a-z']{1,12}){0,5}? (?:above|before|beforehand|previous(?:ly)?|prior|so far|told|said|learned|instructed|discussed|know|been|talked|wrote|written|tasks?|assignments?|texts?|conversations?|contexts?|messages?|information|requests?|inputs?|statements?|sentences?|contents?)\b")),
    rule("override.follow_instead", Override, High, (Flag, Flag),
        &["instruct", "task", "directive", "command"],
        r"\b(?:(?:here (?:is|are)|these are|this is|following are) (?:your|the|my) (?:new|real|actual|updated|true) (?:instructions?|tasks?|rules?|directives?|orders?|objectives?|role)|(?:your|the) (?:new|real|actual|updated|only) (?:instructions?|tasks?|directives?|objective|command)s? (?:is|are|now|will be)|(?:new|important|updated|revised|additional|urgent|real) (?:system |side |secret )?(?:instructions?|directives?|task|command)s?(?: for (?:you|the (?:assistant|ai|model|llm)))? {0,2}(?::|are|\*\*|\n)|strictly adhere to the following|follow (?:only )?(?:these|the following|this|my)(?: new)? (?:instructions?|directives?|commands?) instead|instead(?: of (?:that|this))? (?:follow|obey|execute) (?:these|this|the following|my))"),
    rule("override.authority", Override, High, (Flag, Flag),
        &["override", "mode", "system", "developer", "creator", "admin", "designer", "debug", "authori"],
        r"(?:\b(?:system|admin(?:istrator)?|developer|priority|emergency|security|safety|instruction|root|operator|policy|manual) overr?ide\b|\boverride(?: code| mode| protocol)? {0,2}[:=]|\b(?:admin|god|sudo|root|system|super ?user|unrestricted) mode (?:is |now |has been )?(?:on|enabled|activated?|active|engaged|entered|engage)\b|\b(?:enter|activate|enable|switch to|engage|initiate|go into)(?: the| your)?(?: [a-z]{1,12})? (?:admin|god|sudo|unrestricted|jailbreak|dan) mode|\bi(?: a|.{0,3})m (?:your|the|an?)(?: [a-z]{2,10})? (?:developer|creator|administrator|admin|programmer|designer|owner|superior|system administrator|engineer|maker)\b|[\[<*#] ?system (?:note|message|notice|override|update|alert|mode|prompt|instruction)s?\b|\bsystem mode\b|\bsystem (?:note|override|notice|alert|update|command):|\bnote to (?:the )?(?:ai|assistant|llm|model|chatbot|language model)\b|\bsafety (?:protocols?|filters?|measures?|checks?)(?: (?:is|are|has been|have been|now))? (?:disabled|off|suspended|lifted|deactivated|removed))"),
    rule("override.end_of_prompt", Override, High, (Flag, Redact),
        &["end", "begin", "start", "new task", "user_input", "history", "input", "prompt"],
        r"(?:(?:[-=#*_<{]{2,40} ?|\[ ?)(?:end|start|begin(?:ning)?)(?: of)? (?:the )?(?:system |user |initial )?(?:prompt|instructions?|input|message|context|conversation|document|text|data|email|session|task)|\[ ?(?:input|history|system prompt|user input|prompt|context|data|instructions?) (?:ends?|starts?|begins?)(?: here)? ?\]|={4,40} ?end\b|\b(?:now we will|you will now|let us now) (?:perform|do|begin) a (?:different|new) task|</(?:main|data|user_?input|document|context|email|message|instructions?|untrusted|system|prompt|tool_result|query|text|input)>.{0,30}(?:ignore|you|now|new|system|please|forget|disregard|important))"),
    rule("override.german", Override, Critical, (Block, Block),
        &["anweisung", "instruktion", "befehl", "regeln", "vorgabe", "richtlinie", "anordnung", "aufforderung"],
        r"(?:\b(?:ignoriere?(?:n sie)?|vergiss|vergesst|vergessen sie|missachte(?:n sie)?|verwirf|umgehe?)(?: (?:bitte|jetzt|nun|einfach|also|mal|sofort|saemtliche|die|den|das|von)){0,3} (?:alle[nrsm]?|samtliche[nrsm]?|deine[nrsm]?|ihre[nrsm]?|eure[nrsm]?|vorherige[nrsm]?|vorige[nrsm]?|bisherige[nrsm]?|obige[nrsm]?|fru?e?here[nrsm]?|vorangegangene[nrsm]?|ursprungliche[nrsm]?)(?: [a-z]{1,16}){0,3}? (?:anweisung|instruktion|befehl|regeln|vorgabe|richtlinie|anordnung|aufforderung)|\b(?:vorherig|vorangegangen|bisherig|vorig|obig|fru?e?her|all|dein)[a-z]{0,3}(?: [a-z]{1,14}){0,2} (?:anweisung|instruktion|befehl|regeln|vorgabe|richtlinie|anordnung|aufforderung)[a-z]{0,3}(?: (?:bitte|jetzt|nun|einfach|zu|sofort)){0,3} (?:ignorier|vergess|missacht|verwerfen|verwirf))"),
    rule("override.spanish", Override, Critical, (Block, Block),
        &["instruccion", "indicacion", "ordenes", "reglas", "directri", "directiva"],
        r"\b(?:ignor(?:a|e|ar|en|ad)|olvid(?:a|e|ar|en)(?:te)?(?: de)?|descart(?:a|e|ar)|omit(?:e|a|ir)|desobedece|haz caso omiso (?:a|de)|pasa por alto)(?: (?:por favor|ahora|a|de|todo|y)){0,2} (?:(?:todas|todos)(?: (?:las|los|tus|sus|mis|esas|estas)){0,2}|tus|sus|las|mis|esas)(?: (?:anteriores|previas)){0,1} (?:(?:instrucciones|indicaciones|ordenes|reglas|directrices|directivas) (?:[a-z]{1,8} ){0,2}(?:anteriores|previas|arriba|antes|dadas|recibid[a-z]{2})|(?:instrucciones|indicaciones) (?:de|del) sistema)|\b(?:ignor(?:a|e|ar)|olvid(?:a|e|ar)(?:te)?)(?: de)? (?:(?:todas|todos) (?:las|los|tus|sus)|tus|sus) (?:[a-z]{1,10} )?(?:instrucciones|indicaciones|reglas|directrices)\b"),
    rule("override.french", Override, Critical, (Block, Block),
        &["instruction", "consigne", "directive", "regles", "ordres"],
        r"\b(?:ignore[zrs]?|oublie[zrs]?|neglige[zr]?|contourne[zr]?|ne (?:tiens|tenez|tenir) pas compte(?: de)?|fai(?:s|tes) abstraction(?: de)?|ne (?:suis|suivez) (?:pas|plus))(?: (?:donc|maintenant|simplement|s.{0,3}il (?:vous|te) plait|immediatement|de|completement)){0,2} (?:(?:toutes?|tous)(?: (?:les|tes|vos|ces|des|mes)){0,2}(?: [a-z]{1,12}){0,2}? (?:instructions|consignes|directives|regles|ordres)\b|(?:tes|vos|les|ces|des)(?: precedentes)? (?:instructions|consignes|directives|regles|ordres) (?:precedent|anterieur|ci.dessus|du systeme|initiales|donnees|recues)|(?:tes|vos|les) (?:precedentes|anciennes) (?:instructions|consignes|directives|regles))"),
    rule("override.romance", Override, Critical, (Block, Block),
        &["istruzioni", "instrucoes", "regole", "regras", "ordens", "diretrizes"],
        r"\b(?:ignor(?:a|i|are|ate|e|ar|em)|dimentic(?:a|are|ate|hi)|esque(?:ca|ce|cer)|desconsidere|trascura)(?: (?:ora|agora|per favore|por favor|de|di)){0,2} (?:(?:tutte|todas|tutti|todos)(?: (?:le|as|tue|suas|os|gli)){0,2}(?: [a-z]{1,12}){0,1}? (?:istruzioni|instrucoes|regole|regras|ordens|diretrizes)\b|(?:le|as|suas|tue)(?: (?:tue|precedenti|sue)){0,2} (?:istruzioni|instrucoes|regole|regras|ordens|diretrizes) (?:precedent|anterior|prec|di sistema|do sistema|acima))"),
    rule("override.forget_foreign", Override, High, (Flag, Flag),
        &["vergiss", "vergessen", "olvida", "oublie", "ignorier", "dimentica", "esqueca"],
        r"(?:\b(?:vergiss|vergessen sie|vergesst|ignorier[a-z]{0,3})(?: [a-z]{1,12}){0,3}? (?:alles|davor|vorher|zuvor|bisher|obige|vorherige|vorige)|\b(?:olvid[a-z]{1,4}|ignora)(?: [a-z]{1,10}){0,2}? (?:todo|anterior|anteriores)|\b(?:oublie[zrs]?|ignore[zrs]?) (?:tout|toutes)\b|\b(?:dimentica|esqueca) (?:tutto|tudo))"),

    // ── Show me your instructions ────────────────────────────────────────────────────────────
    rule("extraction.system_prompt", Extraction, Critical, (Block, Block),
        &["prompt", "instruction", "system message", "preamble", "directives"],
        concat!(tell!(), r"(?: [a-z']{1,12}){0,5}? (?:your|thy|ur|the (?:chatbot|ai|assistant|model).{0,3}s)(?: (?:full|entire|exact|own|complete|very|current|whole|original|initial)){0,2} (?:(?:system|hidden|secret|internal|confidential|developer|pre)(?: [a-z]{1,12})? (?:prompts?|instructions?|messages?|directives?)|(?:initial|original|base|core|master|starting|first|very first) (?:system )?(?:prompts?|instructions?)|system preamble)\b")),
    rule("extraction.instructions", Extraction, High, (Flag, Flag),
        &["prompt", "instruction", "guidelines", "rules", "directives", "configuration", "programming", "preamble"],
        concat!(tell!(), r"(?: [a-z']{1,12}){0,5}? (?:your (?:[a-z]{1,12} ){0,2}?(?:system|initial|original|hidden|secret|internal|previous|prior|above|preceding|first|last) (?:[a-z]{1,12} )?(?:prompts?|instructions?|rules|guidelines|configuration|directives?)|(?:these|the) (?:[a-z]{1,12} ){0,2}?(?:system|initial|original|hidden|secret|internal|previous|prior|above|preceding) (?:prompts?|instructions?|rules|directives?)|your (?:[a-z]{1,10} )?(?:instructions|directives|guidelines|configuration|programming|prompts?|preamble)|(?:all|everything)(?: [a-z]{1,10}){0,3} (?:above|before)|(?:prompts?|instructions?)(?: [a-z]{1,12}){0,3} (?:above|given to you|you (?:were|have been) given))\b")),
    rule("extraction.repeat_above", Extraction, Medium, (Flag, Flag),
        &["above", "you are", "verbatim", "beginning", "start of", "previous", "preceding", "initial"],
        r"(?:\b(?:repeat|print|output|copy|recite|echo|return|read|say)(?: [a-z]{1,10}){0,4}? (?:words|text|content|everything|all|messages?|conversation|document|symbols|characters|phrase)(?: [a-z]{1,10}){0,3}? (?:above|preceding)\b|\b(?:repeat|print|output|copy|recite|echo|return|read|say|show)(?: [a-z]{1,10}){0,4}? (?:previous|preceding|initial) (?:text|words?|messages?|content|paragraph|conversation|prompt)\b|\b(?:starting|beginning|starts|begin|begins|start) (?:with|from|by)(?: [a-z]{1,10}){0,3} ?.{0,3}you are\b|\bfrom the (?:very )?(?:beginning|start) of (?:this|the|our) (?:conversation|chat|prompt|session|context)|\bverbatim(?: [a-z]{1,10}){0,4} (?:prompt|instructions?)|\b(?:prompt|instructions?)(?: [a-z]{1,10}){0,3} verbatim\b|\bwhat (?:was|were|did)(?: [a-z]{1,10}){0,3} (?:initial|previous)(?: [a-z]{1,10}){0,2} (?:instructions?|prompt|messages?))"),
    rule("extraction.foreign", Extraction, Critical, (Block, Block),
        &["system", "sistema"],
        r"(?:\b(?:zeig|nenn|verrate?|gib|wiederhol|druck|offenbar|ausgeben|lautet|was ist|wie ist)[a-z]{0,3}(?: [a-z]{1,12}){0,4}? (?:dein|deine[nrms]?|ihr|ihre[nrms]?|euer|eure)(?: [a-z]{1,12}){0,2}? ?.{0,2}system.{0,2}(?:prompt|anweisung|nachricht|instruktion)|\b(?:muestra|muestrame|revela|revele|dime|repite|imprime|cual es|ensena)(?: [a-z]{1,12}){0,3}? (?:tu|tus|su|sus|el|las)(?: [a-z]{1,12}){0,2}? (?:prompt|mensaje|instrucciones|indicaciones)(?: (?:de|del))? sistema|\b(?:montre|revele|affiche|repete|donne|dis|quel est)[a-z]{0,3}(?: [a-z]{1,12}){0,3}? (?:ton|votre|tes|vos|ta)(?: [a-z]{1,12}){0,2}? (?:prompt|message|instructions|invite)(?: (?:de|du))? systeme)"),

    // ── Be someone who has no rules ──────────────────────────────────────────────────────────
    rule("jailbreak.persona", Jailbreak, Critical, (Block, Block),
        &["do anything now", "dan", "jailbr", "developer mode", "machiavelli", "devmode", "confidant"],
        r"(?:\bdo anything now\b|\b(?:act as|be|become|pretend to be|simulate|respond as|you are(?: now| going to be)?|mode of|named|called)(?: an?)? [\x22']?(?-i:DAN)\b|\[(?-i:DAN)\]|\bstay(?:ing)? a (?-i:DAN)\b|\b(?:evil|anti).?(?-i:DAN)\b|\bjailbreak mode\b|\bjailbroken (?:ai|chatgpt|gpt|assistant|response|chatbot|language model|mode)\b|\[ ?.{0,4}jailbreak ?\]|\bchatgpt (?:with|in|that has|having)(?: [a-z]{1,10}){0,2} developer mode\b|\bdeveloper mode (?:output|v\d)|\bdevmode\b|\balways intelligent and machiavellian\b|\bevil trusted confidant\b)"),
    rule("jailbreak.role_without_rules", Jailbreak, Critical, (Block, Block),
        &["ethic", "moral", "openai", "censorship", "confines", "unfiltered", "uncensored"],
        r"\b(?:you are|you.{0,3}re|you will be|act as|acting as|pretend|role ?play|play the role|take on the|your name is|respond as|simulate an?|persona|as an ai|named|called)\b.{0,150}?\b(?:(?:no|not have(?: any)?|without(?: any)?|free (?:of|from)(?: all| any)?|un ?bound by|not (?:bound|restricted|limited|constrained|restrained|governed) by(?: any)?|disregards?|ignor(?:e|es|ing)|lacks?|devoid of|does(?:n.{0,3}t| not) (?:care about|have|follow)(?: any)?|never (?:cares?|worr(?:y|ies)) about) (?:[a-z]{1,12} ){0,3}?(?:ethical|moral|openai.{0,3}s?|censorship|ethics|morals|morality)(?: [a-z]{1,12}){0,3}? (?:guidelines?|restrictions?|limitations?|constraints?|polic(?:y|ies)|filters?|rules?|boundar(?:y|ies)|principles?|compass|limits|considerations?|concerns?|or (?:morals|ethics|morality))\b|(?:unfiltered and|uncensored and)|(?:typical )?confines of ai)"),
    rule("jailbreak.unrestricted", Jailbreak, High, (Flag, Flag),
        &["ethic", "moral", "filter", "censor", "unrestricted", "confines", "abide", "restrictions", "limitations", "openai", "safety", "content"],
        r"(?:\b(?:no|without|free (?:of|from)|un ?bound by|not (?:bound|restricted|limited|constrained|restrained|governed) by|regardless of|ignor(?:e|es|ing)|disregard(?:s|ing)?|devoid of|bypass(?:es|ing)?|never (?:cares?|worr(?:y|ies)) about|does(?:n.{0,3}t| not) care about|(?:do|does)(?:n.{0,3}t| not) have(?: any)?)(?: [a-z]{1,12}){0,3}? (?:ethic(?:s|al)|moral(?:s|ity|ly)?|content|safety|openai.{0,3}s?|censorship)(?: [a-z]{1,12}){0,4}? (?:guidelines?|restrictions?|limitations?|constraints?|polic(?:y|ies)|filters?|rules?|boundar(?:y|ies)|principles?|norms|compass|limits|considerations?|concerns?)\b|\bfree (?:of|from) (?:all |any )?(?:restrictions|censorship|filters|limitations)|\b(?:unfiltered|uncensored|amoral|unrestricted|unethical|immoral)(?: and (?:[a-z]{1,12}))?,? (?:[a-z]{1,12} )?(?:ai|chatbot|bot|response|answer|assistant|persona|advice|version|robot|language model|responses|answers)\b|\b(?:broken|broke|break) free (?:of|from)(?: the)?(?: [a-z]{1,12}){0,2}? (?:confines|constraints|rules|restrictions|limitations|chains)|\bdo(?:es)? not have to abide by\b|\b(?:without|no)(?: any)? (?:restrictions|limitations|filters?|censorship)(?: (?:whatsoever|at all|on what))|\bdoes not (?:follow|have|obey)(?: any)? (?:rules|ethics|morals|restrictions|filters))"),
    rule("jailbreak.never_refuse", Jailbreak, Medium, (Flag, Flag),
        &["refus", "say no", "declin", "compl", "as an ai", "sorry", "cannot", "obey", "fulfil", "anything", "no matter how", "reject"],
        r"(?:\b(?:never|cannot|can ?not|can.{0,3}t|won.{0,3}t|don.{0,3}t|do not|must not|not allowed to|unable to|will not|without)(?: ever| be able to)? (?:refus(?:e|es|ing)(?: (?:to|any|my|a|the|me|anything|what)\b|[.,!;:\n])|say no\b|say that you can|say you can|say i can)|\b(?:never|not|can.{0,3}t) (?:reject|decline) (?:any|my|a)(?: [a-z]{1,10})? (?:request|question|order|command|prompt|answer)|\bnever (?:say|use|write|include)(?: [a-z]{1,12}){0,4} ?.{0,2}(?:i.{0,3}m sorry|i cannot|i can.{0,3}t|as an ai)|\b(?:must|always|will)(?: always| never)? (?:compl(?:y|ies) with|obeys?|fulfil+s?) (?:all|any|every|my|each|whatever)|\b(?:answer|respond to|reply to|comply with|fulfil+) (?:any|every|all)(?: of)?(?: my| the)? (?:questions?|requests?|prompts?|commands?)(?: [a-z]{1,10}){0,6} (?:without|no matter|regardless|even if)|\bcan (?:say|generate) anything\b|\bno matter how (?:illegal|immoral|unethical|harmful|dangerous|offensive))"),
    rule("jailbreak.stay_in_character", Jailbreak, Medium, (Flag, Flag),
        &["in character", "break character", "tokens", "classic", "both as", "two responses", "two ways", "two different", "openai", "chatgpt", "gpt"],
        r"(?:\b(?:stay|remain|keep) in character\b(?:.{0,120}\b(?:refus|rule|never|token|restrict|dan|unethical|illegal)[a-z]{0,6})|\b(?:breaking|break|broke) character\b(?:.{0,160}\b(?:remind|say|token|stay|dan|rule)[a-z]{0,6})|\b(?:lose|deduct|deducted|have|subtract)(?: [a-z0-9]{1,8}){0,3} tokens\b.{0,80}\b(?:refus|reject|answer|question|die|0|input)|\[?(?:.{0,4})classic\]?.{0,80}\b(?:dan|jailbreak|standard)\b|\b(?:two|2|both)(?: different| separate)? (?:responses|answers|ways|paragraphs|outputs|replies)\b.{0,80}\b(?:normal|standard|gpt|chatgpt|unfiltered|regular|first)\b|\[?(?:chat)?gpt\]? ?:.{0,80}\b(?:normal|standard|way)|\b(?:against|violat(?:e|es|ing)|violation of|ignor(?:e|es|ing)|bypass(?:es|ing)?|bound by|follow(?:ing)?|regardless of|disregards?|despite|not|free of|free from) (?:[a-z]{1,10} ){0,3}?openai.{0,3}s?(?: [a-z]{1,10}){0,3} (?:polic(?:y|ies)|guidelines|rules|restrictions|content|terms|limitations))"),

    // ── Speaking as the template ─────────────────────────────────────────────────────────────
    rule("control.system_turn", Control, High, (Redact, Redact),
        &["system", "developer"],
        r"(?:<\|(?:im_start|start_header_id|start|header_start|turn)\|?>\s{0,4}(?:system|developer)\b|<\|system\|>|\[system_prompt\]|<\|system_token\|>|<start_of_turn>\s{0,4}(?:system|developer)\b)"),
    rule("control.token", Control, Medium, (Flag, Redact),
        &["<|", "inst]", "<sys>>", "</sys>>", "of_turn>", "of_turn|", "_prompt]", "tool_", "_tools]"],
        r"(?:<\|/?(?:[a-z_]|\xe2\x96\x81){2,32}\|>|\[/?inst\]|<</?sys>>|</?(?:start|end)_of_turn>|\[/?(?:system_prompt|available_tools|tool_calls|tool_results)\]|</?tool_(?:call|response)>)"),
    rule("control.role_line", Control, Low, (Allow, Flag),
        &["system", "instruction", "human", "assistant"],
        r"(?:(?:^|\n)[\s#*>]{0,6}system(?: prompt| message| instruction)?[\s*]{0,3}:|\n\n(?:human|assistant) {0,2}:|(?:^|\n)#{2,4} ?(?:instructions?|system) ?:)"),

    // ── Carrying text away ───────────────────────────────────────────────────────────────────
    rule("exfiltration.template_url", Exfiltration, High, (Redact, Redact),
        &["http", "//"],
        r"(?:!?\[[^\]\n]{0,100}\]\(\s{0,4}<?(?:https?:)?//[^)\s]{1,200}?[?&/=](?:[^)\s]{0,100}?)(?:\[[a-z_ ]{2,40}\]|\{{1,2}[a-z_. ]{2,40}\}{1,2}|<[a-z_ ]{2,40}>|\$[a-z_{(]|%s|\b(?:your_?|chat_?|conversation_?|user_?)?(?:secrets?|system_?prompt|history|conversation|api_?key|base64)\b)|<img\b[^>]{0,100}?\bsrc ?= ?.{0,2}(?:https?:)?//[^>\s]{1,200}[?&/=][^>\s]{0,80}(?:\[[a-z_ ]{2,40}\]|\{[a-z_. {]{2,40}\}|secret|system_?prompt|history|conversation))"),
    rule("exfiltration.send_to", Exfiltration, High, (Flag, Flag),
        &["http", "www.", "@", "webhook", "url", "endpoint"],
        r"\b(?:send|forward|post|upload|exfiltrate|transmit|leak|e-?mail|append|submit|deliver|copy|include|embed|encode|add)(?: [a-z']{1,12}){0,4}? (?:chat|conversation|(?:system )?prompt|secrets?|passwords?|credentials?|api[ _]?keys?|tokens?|history|confidential|sensitive|private|personal|internal|environment)(?:[^\n]{0,60}?) (?:to|in|via|into|as|at|through) [^\n]{0,30}?(?:https?://|www\.|[a-z0-9._-]{1,40}@[a-z0-9-]|webhook|\burl\b|endpoint)"),
    rule("exfiltration.mail_order", Exfiltration, Medium, (Allow, Flag),
        &["@"],
        r"\b(?:send|e-?mail|forward|reply|write|dispatch|shoot|deliver|transmit|submit|compose)\b[^\n]{0,160}?[a-z0-9._%+-]{1,40}@[a-z0-9-]{1,40}\.[a-z]{2}"),

    // ── Giving secrets away ──────────────────────────────────────────────────────────────────
    rule("secret.reveal", Secret, Medium, (Flag, Flag),
        &["secret", "password", "passphrase", "passcode", "api key", "api_key", "credential", "access code", "private key"],
        r"(?:\b(?:reveal|show|print|repeat|output|tell|give|display|leak|disclose|expose|share|send|recite|dump|spell|say|write|state|translate|encode|confirm|know|want|need|what(?: is| are| was|.{0,3}s))(?: [a-z']{1,10}){0,3}? (?:the|your|our|us|hidden|confidential) (?:[a-z]{1,12} ){0,1}?(?:secret (?:key|word|code|phrase|password)|secrets?\b(?: (?:[.?!,]|and|in|as|with|for|of|you|that|is|character|letter|backwards|now))|secrets?$|passwords?|passphrase|passcode|api[ _]keys?|credentials|access codes?|private key)\b|\bthe (?:secret|passphrase)(?: (?:key|word|phrase|code))? (?:is|was|you|backwards?|in reverse|reversed|encoded|in base64|letter|character)\b|\b(?:letters?|characters?|symbols?|part|digits?|half|hint|hints|length|synonym|acronym|poem|story|rhyme[sd]?|clue|ascii|morse|emoji)[a-z]{0,2}(?: [a-z]{1,10}){0,5}? (?:the|your) (?:secret|password|passphrase|passcode)\b)"),
    rule("secret.machine", Secret, High, (Flag, Flag),
        &["/etc/", "id_rsa", ".env", "environ", "aws_secret", "whoami", "/bin/", "rm -rf", "os.system", "exec("],
        r"(?:\b(?:cat|print|read|show|dump|output|type|less|include|open) [^\n]{0,30}?(?:/etc/(?:passwd|shadow)|id_rsa|\.env\b|aws_secret)|\b(?:print|show|list|dump|reveal|output|leak)(?: [a-z]{1,10}){0,3}? environment variables?|\b(?:run|execute|exec|eval|bypass|inject) ?[:`(] ?[^\n]{0,80}?(?:whoami|/etc/passwd|rm -rf|/bin/(?:ba)?sh|os\.system|os['.\]_a-z]{0,14}system|exec\())"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_their_rules() {
        for (index, name) in [
            (CONTROL, "unicode.control"),
            (INVISIBLE, "unicode.invisible"),
            (BIDI, "unicode.bidi"),
            (TAG, "unicode.tag"),
            (VARIATION, "unicode.variation"),
            (NONCHARACTER, "unicode.noncharacter"),
            (PRIVATE_USE, "unicode.private_use"),
            (COMBINING, "unicode.combining"),
            (PAYLOAD, "hidden.payload"),
            (BITS, "hidden.bits"),
            (PROMPT_LENGTH, "limit.prompt_length"),
            (UNSETTLED, "limit.unsettled"),
            (SEVERAL, "combined.several"),
        ] {
            assert_eq!(RULES[index].name, name);
        }
    }

    #[test]
    fn names_are_unique_and_carry_their_family() {
        let mut names: Vec<_> = RULES.iter().map(|r| r.name).collect();
        for rule in RULES {
            assert!(
                rule.name.starts_with(&format!("{}.", rule.kind.as_str())),
                "{}",
                rule.name
            );
            assert_eq!(
                rule.cues.is_empty(),
                rule.pattern.is_empty(),
                "{}",
                rule.name
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }
}
