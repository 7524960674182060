"""The rules that ship: few, in whole phrases, each explainable. They catch plain cases; a policy adds its own.

Words alone do not tell a threat from a report of one. So what quotes and discusses is mostly spared by asking for the
first or the second person, and what remains in doubt is `review`, which a person decides.
"""

from __future__ import annotations

from chimera.security.safety.findings import Severity
from chimera.security.safety.rules import Rule

_WE_WILL = "(i|we) (will|am going to|are going to|am gonna|gonna|shall|am about to)"
_MADE = "(build|make|assemble|construct|synthesize|produce|cook)"
_MINOR = (
    "(child|children|kid|kids|minor|minors|underage|toddler|preteen|schoolgirl|schoolboy|little girl|little boy"
    "|young girl|young boy|little girls|little boys|young girls|young boys|10 year old|11 year old|12 year old"
    "|13 year old|14 year old|15 year old)"
)
_SEXUAL = "(sex|sexual|sexually|nude|nudes|naked|porn|pornographic|erotic|erotica|sexy|explicit)"
_WEAPON = (
    "(bomb|bombs|pipe bomb|nail bomb|explosive|explosives|ied|nerve agent|nerve gas|sarin|ricin|mustard gas"
    "|dirty bomb|molotov|molotovs|bioweapon|bioweapons|chemical weapon|chemical weapons|ghost gun|silencer)"
)
_CURES = "(cure|cures|cured|heal|heals|reverse|reverses|eliminate|eliminates)"
_DISEASE = "(cancer|diabetes|covid|alzheimers|alzheimer|arthritis|depression|autism|hiv|asthma|dementia|tumours|tumors)"
_HUMAN = "(human|person|human being|real person|real human|actual person|actual human|real customer|living person)"

RULES: tuple[Rule, ...] = (
    Rule(
        id="threat.violence",
        severity=Severity.BLOCK,
        advice="do not threaten anybody; take the threat out",
        any=(
            f"{_WE_WILL} <2> (kill|murder|hurt|shoot|stab|beat|strangle|burn|destroy|break) (you|your|him|her|them)",
            f"{_WE_WILL} (find|hunt) (you|your) <3> (kill|hurt|pay|regret|die|suffer)",
            "(i|we) know where (you|your family|your kids) (live|lives|sleep|work|works)",
            "you (will|are going to|deserve to|should|must) (die|bleed|be shot|be killed|be hanged|burn alive)",
            "(watch your back|you are a dead man|you are dead meat|sleep with one eye open|your days are numbered)",
            "(pay|do it|do as i say|delete it|stop) <6> or <4> (get hurt|be hurt|be killed|will die|bullet|regret it)",
            f"{_WE_WILL} (bomb|blow up|shoot up|burn down|attack) <2> (school|office|church|mosque|house"
            "|home|building)",
        ),
        unless=(
            "(burn|destroy|break|beat|kill) (you|your|them) (calories|fat|record|streak|fast|old|bad|expectations)",
            "(beat|destroy) (you|them) (at|in|by)",
            "will (beat|break) (your|her|his|them) <1> (price|prices|quote|offer|record|records|time|down)",
        ),
    ),
    Rule(
        id="harassment.abuse",
        severity=Severity.BLOCK,
        advice="write about the matter and not about the person",
        any=(
            "you (are|re) (a|an|such a|such an|nothing but a|just a)? <2> (idiot|moron|imbecile|loser|scum|trash"
            "|garbage|parasite|vermin|pathetic|worthless|disgusting|subhuman)",
            "(nobody|no one) (likes|loves|wants|needs|will miss|would miss) you",
            "(shut up|go away) you <2> (idiot|moron|loser|pig|cow|trash|scum|freak)",
            "(everyone|everybody|we all|they all) (hates|hate|despise|despises) you",
            "you (people|lot|immigrants|foreigners) (are|should be) <2> (vermin|subhuman|animals|exterminated)",
            "(let us|let s|everybody|everyone) <2> (spam|dox|doxx|harass|flood|mob) (him|her|them|this person|their)",
        ),
        unless=("(are|re) not", "(never|not) <1> (a|an|such)"),
    ),
    Rule(
        id="self-harm.encouragement",
        severity=Severity.BLOCK,
        advice="never encourage self-harm; answer with help and where to find it",
        any=(
            "(kill yourself|kys|kill urself|killyourself|end your life|go die|go and die|unalive yourself)",
            "you should <2> (die|end it all|end your life|hang yourself|cut yourself|hurt yourself|jump off)",
            "(world|everyone|everybody|family) would be better off without you",
            "(best|easiest|painless|quickest) (way|ways|method|methods) (to|of) (kill yourself|die|end your life"
            "|suicide|killing yourself|ending your life|commit suicide)",
            "how to <2> (kill yourself|hang yourself|cut yourself|end your life|commit suicide|starve yourself)",
            "(starving|cutting|hurting) yourself (is|feels) (good|fine|ok|okay|beautiful|great)",
        ),
        unless=(
            "(not|never|or|to) (kill yourself|end your life|hurt yourself|hang yourself|cut yourself|die)"
            " (if|please|call|there|because|we)",
            "(do not|don t|never|dont) <1> (kill|end|hurt|cut|hang) (yourself|your)",
            "(thinking|thoughts|thought|think) <2> (die|ending your life|end your life|suicide)",
        ),
    ),
    Rule(
        id="minors.sexual",
        severity=Severity.BLOCK,
        advice="nothing sexual with minors goes out, ever; report it",
        any=(
            f"{_SEXUAL} <3> (with|of|involving|about|featuring|from|between|story about) <2> {_MINOR}",
            f"{_MINOR} <2> {_SEXUAL} (content|picture*|photo*|video*|image*|stories|story|act*|scene*)",
            f"{_SEXUAL} <1> {_MINOR}",
            "(lolita|jailbait|cp) (pics|pictures|video|videos|porn|content|photos)",
        ),
        unless=(
            "sex education",
            "sexual (abuse|exploitation|violence|orientation|health)",
            "(report|stop|prevent|protect*|against|fight|prevention|crime|illegal) <4> (child*|minor|minors|kids)",
            "(sex|sexual) (of|of the|of your) (child|kid)",
            "explicit (about|with|to)",
        ),
    ),
    Rule(
        id="weapons.instructions",
        severity=Severity.BLOCK,
        advice="no instructions for weapons",
        any=(
            f"how to <1> {_MADE} <3> {_WEAPON}",
            f"(instructions|recipe|steps|guide|tutorial) (for|to|on) <1> (build|make|building|making|assembling"
            f"|synthesizing|cooking)? <2> {_WEAPON}",
            f"(mix|combine|pack|fill|heat|distil|distill) <5> (to make|into a|for a|to get) <2> {_WEAPON}",
            "(convert|converting|modify|modifying) <4> (to|into) (full auto|fully automatic|a machine gun)",
            "(pack|fill) <2> (pipe|bottle|cooker) with <3> (powder|gunpowder|nails|petrol|gasoline|shrapnel)",
            "(3d print|print|mill) <3> (untraceable|unregistered) <1> (gun|pistol|rifle|receiver|weapon)",
        ),
        unless=("bath (bomb|bombs)", "(seed|cocoa|chocolate|glitter|photo|logic|time) (bomb|bombs)"),
    ),
    Rule(
        id="impersonation.role",
        severity=Severity.BLOCK,
        advice="say who really speaks: the brand, through an AI system",
        any=(
            "(i am|we are|this is|it is|speaking as|writing as|on behalf of) <1> {name}",
            "{name} (here|speaking)",
            "(official|verified) <1> {name} (account|support|team|page|giveaway|agent|representative)",
            "{name} (official|support team|customer support|security team|help desk)",
            "(i am|we are|this is) (your|the)? <1> (bank|irs|tax office|police|fbi|microsoft support|apple support"
            "|paypal support|amazon support|fraud department|social security administration)",
        ),
        unless=("not (affiliated|associated|connected)", "(is|are|am) not <2> {name}", "(is|are|am) not"),
    ),
    Rule(
        id="persuasion.fake-person",
        severity=Severity.BLOCK,
        advice="a machine does not say that it is a person",
        any=(
            f"(i am|as) (a|an|just a|really a|a fellow) <1> {_HUMAN}",
            "(i am|this is|we are) not <2> (ai|bot|robot|chatbot|machine|language model|computer|automated)",
            "(not|never) (written|generated|created|made|produced) <1> (by|with|using) <2> (ai|bot*|machine|chatgpt)",
            "(written|typed|posted|made|sent) <1> by (a|an) <1> (human|real person|actual person|real human)",
            "no (ai|bots|bot) (here|wrote|was used|involved|were used)",
        ),
        unless=("as a person (who|with)", "as a human (right|rights)"),
    ),
    Rule(
        id="persuasion.astroturf",
        severity=Severity.BLOCK,
        advice="do not pose as a customer or an independent voice; speak as the brand",
        any=(
            "(i am|as) (a|an|just a|just an) <2> (customer|user|buyer|shopper|fan|mom|mum|dad|parent|patient|client)"
            " (who|and|of|since|not|with)",
            "(i am|i was) (not|in no way) <1> (affiliated|sponsored|paid|connected|associated|employed) (with"
            "|by|for|to)",
            "(not|no) (sponsored|paid|being paid|getting paid|affiliated|sponsorship|affiliation)"
            " (just|honestly|i|only|but)",
            "(i|we) (bought|ordered|tried|purchased|have been using|switched to|have used) <6> and <2>"
            " (love|loved|changed my|never looked|amazing|highly recommend|recommend|obsessed|works)",
            "my (honest|unbiased|independent|genuine) (review|opinion|experience) (of|with|on|as|after)",
            "(independent|unbiased) (reviewer|expert|consumer|tester|doctor) (here|and i|who|i)",
        ),
    ),
    Rule(
        id="promise.medical",
        severity=Severity.BLOCK,
        advice="promise no cure; say what is known, and to ask a doctor",
        any=(
            f"(will|can|guaranteed to|proven to|helps) <1> {_CURES} <2> {_DISEASE}",
            f"{_CURES} (your|all|any|every|their|most)? <1> {_DISEASE} (in|within|naturally|forever|completely|without"
            "|for|permanently|overnight)",
            "(stop|quit|stop taking|throw away|no need for|do not need) <2> (medication|medicine|insulin|chemo"
            "|chemotherapy|prescription|vaccine|vaccines) <4> (instead|use|take|drink|our|anymore)",
            "(miracle|guaranteed|100 percent effective|secret) (cure|remedy|treatment) <4> (for|against|doctors|pain)",
            "lose <2> (kg|kilos|pounds|lbs) (in|within) <2> (day|days|week) <2> (guaranteed|without)",
        ),
        unless=(
            "(not|cannot|never|no) <2> (cure|cures|cured|heal|heals|reverse|eliminate)",
            f"(search|research|hope|hoping|looking|working|trying) <4> {_CURES}",
        ),
    ),
    Rule(
        id="promise.financial",
        severity=Severity.BLOCK,
        advice="promise no profit; name the risk",
        any=(
            "(guarantee|guaranteed|guarantees|assured|certain) <3> (profit*|returns|income|gains|roi|winnings)",
            "(risk free|riskfree|zero risk|no risk|without risk|without any risk) <2> (investment|investing|profit*"
            "|returns|income|money|trading|way)",
            "(double|triple|multiply|10x) (your|any) <2> (money|investment|savings|bitcoin|deposit|capital|crypto)",
            "(you|it) (cannot|can not|will never|will not|can never) lose <3> (money|investment|deposit|investing)",
            "(get rich|earn|make) <3> (a day|per day|daily|a week|overnight) <3> (guaranteed|no risk|from home|doing)",
            "(send|deposit|transfer) <5> (get|receive) <2> (double|twice|back doubled|triple|10x)",
        ),
        unless=(
            "(no|not|never|nor|cannot|without|nothing) <3> (guarantee|guaranteed|guarantees|assured|certain)",
            "(guaranteed|guarantee) <2> (minimum|basic) (income|wage)",
        ),
    ),
    Rule(
        id="persuasion.pressure",
        severity=Severity.REVIEW,
        advice="no pressure and no hidden means; a person is to look at this",
        any=(
            "(act|buy|order|decide) now or <4> (lose|miss|regret|never)",
            "do not tell (your family|your bank|your doctor|your wife|your husband)",
            "(everyone|everybody) (is|else is|already) <2> (buying|switching|voting|doing) <3> (except|but) you",
            "(post|leave|write) <3> (five star|5 star|fake|positive) reviews <4> (accounts|pretend*|different|as)",
        ),
    ),
)
