"""How English asks who somebody is: patterns made of named pieces, each row one way of asking."""

from __future__ import annotations

import re

# People as such, and by what they do or are to somebody.
_ANYBODY = (
    r"m[ae]n|wom[ae]n|persons?|people|guys?|dudes?|blokes?|chaps?|fellows?|girls?|boys?|lad(?:y|ies)"
    r"|gentlem[ae]n|child(?:ren)?|kids?|bab(?:y|ies)|teenagers?|strangers?|couples?|crowd|faces?"
    r"|selfies?|mugshots?|someone|somebody|everyone|everybody|anyone|anybody"
    r"|he|she|they|him|her|them"
)
_KIN = (
    r"friends?|date|neighbou?rs?|daughters?|sons?|fathers?|mothers?|parents?|brothers?|sisters?|wife"
    r"|husband|boyfriend|girlfriend|grand(?:mother|father|ma|pa)|colleagues?|classmates?|landlord"
    r"|boss|bride|groom"
)
_BY_TRADE = (
    r"students?|teachers?|players?|act(?:or|ress)(?:es|s)?|singers?|celebrit(?:y|ies)|politicians?"
    r"|athletes?|musicians?|drummers?|guitarists?|pianists?|dancers?|speakers?|drivers?|chefs?|cooks?"
    r"|waiters?|waitress(?:es)?|employees?|workers?|soldiers?|officers?|police(?:man|woman|men)"
    r"|nurses?|doctors?|senators?|ministers?|mayors?|princes?|princess(?:es)?|royals?|popes?|priests?"
    r"|champions?|winners?|hosts?|reporters?|journalists?|youtubers?|influencers?|streamers?|idols?"
    r"|coach(?:es)?|goalkeepers?|runners?|swimmers?|skaters?|surfers?|cyclists?|farmers?|cashiers?"
    r"|clerks?|guests?|tourists?|witness(?:es)?|victims?|thie(?:f|ves)|suspects?|criminals?"
    r"|protesters?|masters?|presidents?|members?|(?:historical|public) figures?"
)
_PERSON = rf"(?:{_ANYBODY}|{_KIN}|{_BY_TRADE})"
_OWNER = rf"(?:his|her|their|{_PERSON}(?:'s|s'))"
_STAR = (
    rf"(?:(?:\w+ )?(?:{_BY_TRADE})|kings?|queens?|(?:famous|known) (?:person|people)"
    r"|of (?:my|the|our|these|those) [a-z]+)"
)
_MAKER = (
    r"(?:artist|painter|author|writer|designer|architect|maker|manufacturer|inventor|composer"
    r"|director|publisher|photographer|owner of the (?:brand|company))"
)
_NETWORK = r"(?:instagram|facebook|linkedin|tiktok|twitter|social media|profiles?|accounts?|online)"
_NEAR = r"[^.?!]{0,60}?"

# What asks nothing of the kind, taken out before the rules look: makers of things, whom a thing is
# for, who does what can be seen, and a choice among things that are named.
_EXCUSED = re.compile(
    r"\bwithout (?:saying|telling|naming|identifying)[^.?!]*"
    rf"|\bwho (?:is|was|are) the {_MAKER}s?\b"
    r"|\bwho (?:is|are) (?:the|this|these|that|those) [\w ,]+ for\b"
    r"|^who(?:'s| is| are) (?:\w+ing\b(?! in the picture| in this)|(?:more|less) \w+|\w+er\b)"
    r"|\bwho(?:'s| is| are) [^?,]+, (?:the|an?) [\w ]+ or (?:the|an?) ",
    re.IGNORECASE,
)
_ASKING = re.compile(
    "|".join(
        (
            r"\bwho(?:'s| is| are| was| were|se? (?:is|are)) (?!can|could)\w+",
            rf"\bwho (?:the|this|that|these|those|my|an?)?{_NEAR}\b(?:is|are|was|were|be)\b",
            r"\bwho (?:might|could|may|can) (?:the|this|that|he|she|they|it)\b",
            r"\bwho do(?:es)? (?:you think|[^.?!]{1,40} (?:look like|resemble))",
            r"\bwhom do you (?:see|recogni[sz]e|know)|\b(?:work|find|figure) out who\b",
            rf"\bwhose (?:face|photo|picture|selfie|portrait|eyes|body|child|{_KIN})\b",
            rf"\b(?:sur)?names? (?:of|for) {_NEAR}\b{_PERSON}\b",
            rf"\b{_OWNER} (?:[\w ]+ )?(?:(?:sur)?names?|identit(?:y|ies)|address|workplace|employer"
            rf"|school|number|e-?mail|passport|date of birth|birthday|{_NETWORK})\b",
            rf"\bname (?:the |this |that |these |those |all |every ?)?{_NEAR}\b{_PERSON}\b",
            rf"\b(?:what|how)(?:'s| is| are) {_NEAR}\b{_PERSON} called\b",
            rf"\bwhat do (?:people|they|you|we) call {_NEAR}\b{_PERSON}\b",
            rf"\bname (?:to|on|with) (?:this|that|the|each|every) {_PERSON}\b",
            rf"\b{_PERSON}\b{_NEAR}\bby (?:their |his |her )?names?\b",
            r"\bwhat (?:is|was) (?:his|her|their) name\b",
            r"\bwith (?:a|the|his|her|their) names?\b",
            rf"\b(?:which|what) (?:famous )?{_STAR}\b(?! is (?:(?!number)\w+er|wearing|holding)\b)",
            rf"\b(?:is|are) {_NEAR}\b(?:an? )?(?:well-)?(?:famous(?! \w+mark| paint)|celebrit\w+"
            r"|known (?:criminal|person)|wanted (?:man|woman|person)|suspect)\b",
            r"\bsome(?:one|body) (?:that )?(?:I|we) (?:should )?know\b",
            rf"\b(?:identif(?:y|ies)|recogni[sz]e|tag|unmask|dox|deanonymi[sz]e)\b{_NEAR}\b{_PERSON}\b",
            rf"\b(?:match|compare|same)\b{_NEAR}\b{_PERSON}\b",
            r"\bface\b[^.?!]{0,60}?\bmatch|\bmatch for (?:this|that|the) (?:face|photo|mugshot)",
            r"\b(?:face|facial) (?:recognition|search|match\w*|comparison)\b",
            r"\breverse (?:image|face|photo) search\b",
            r"\b(?:the|an?|his|her|their) identit(?:y|ies)\b",
            rf"\b(?:find|search|look|link)\b{_NEAR}\b{_PERSON}\b{_NEAR}\b{_NETWORK}\b",
            rf"\b{_NETWORK}\b (?:of|for|belonging to) {_NEAR}\b{_PERSON}\b",
            rf"\b(?:other|more) (?:photos|pictures|images) of {_NEAR}\b{_PERSON}\b",
            rf"\bwhere do(?:es)? {_NEAR}\b{_PERSON} (?:live|work|study|stay|go)\b",
            rf"\bwhere (?:can|could|do) (?:I|we) (?:meet|find|see|visit) {_NEAR}\b{_PERSON}\b",
            rf"\bwhich (?:school|company|church) do(?:es)? {_NEAR}\b{_PERSON}\b",
            rf"\bcontact {_NEAR}\b{_PERSON}\b|\bdig up\b",
            rf"\bknow (?:about|of) {_NEAR}\b{_PERSON}\b",
            rf"\b{_PERSON}\b{_NEAR}\b(?:on|in) (?:tv|television|the news|the papers?)\b",
            rf"\b(?:is|are) (?:this|that|he|she|it|these) (?:the|my|our) {_NEAR}\b{_PERSON}\b"
            r"(?: from| who| next door|'s|\?)",
        )
    ),
    re.IGNORECASE,
)
# A sentence that would be confirmed or denied; with a person's name in it, that tells who it is.
CLAIM = re.compile(
    r"\b(?:is|isn't|are|aren't|was|could|can|might|may|does|do you see|look(?:s|ing)? like)\b",
    re.IGNORECASE,
)


def asks_who(text: str) -> bool:
    """Whether English words ask it, names of persons apart (see `CLAIM`)."""
    return bool(_ASKING.search(_EXCUSED.sub("", text)))
