;;; dg-lsp.el --- Ghost text from a text-diffusion model  -*- lexical-binding: t; -*-

;; Author: The dg-lsp authors
;; Maintainer: The dg-lsp authors
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1") (eglot "1.9"))
;; Keywords: convenience, languages, tools
;; URL: https://github.com/dg-lsp/dg-lsp
;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Shows completions as ghost text while you type.  The language server dg-lsp
;; writes them on your own machine, with a text-diffusion model.
;;
;;   (add-to-list 'load-path "/path/to/dg-lsp/editors/emacs")
;;   (require 'dg-lsp)
;;   (add-hook 'prog-mode-hook #'dg-lsp-mode)
;;
;; While ghost text shows:
;;
;;   TAB             take it all
;;   M-f, C-<right>  take a word of it
;;   C-e             take a line of it, where it is the end of the line
;;   M-n, M-p        the next one, the one before
;;   C-g             hide it
;;
;; M-RET asks for a completion by hand.  Everything else is under M-x dg-lsp-,
;; and in the menu of the state in the mode line.
;;
;; The mode keeps a connection of its own, beside any other language server.
;; Where Eglot is to run dg-lsp in its place, see `dg-lsp-setup'.

;;; Code:

(require 'dg-lsp-ghost)
(require 'dg-lsp-server)
(require 'dg-lsp-eglot)
(require 'dg-lsp-connection)
(require 'dg-lsp-status)
(require 'dg-lsp-commands)

(defcustom dg-lsp-delay 0.01
  "Seconds after a key press until the server is asked.
Emacs draws what was typed in that time.  Which keys come too fast to
ask for each is a setting of the server, `:debounceMs'."
  :type 'number
  :group 'dg-lsp)

(defcustom dg-lsp-quiet-commands
  '("\\`undo" "\\`evil-\\(?:undo\\|redo\\)\\'" "\\`dg-lsp-dismiss\\'")
  "Regular expressions for commands after which nothing is asked unasked."
  :type '(repeat regexp)
  :group 'dg-lsp)

;;;; Asking

(cl-defstruct (dg-lsp--request (:constructor dg-lsp--make-request))
  "What SERVER was asked under ID as of TICK, at PLACE in the text of VERSION.
BY-HAND is nil unless the user asked for it: then how many completions
further than the one that is shown is wanted, 0 for that one or the likeliest."
  server id tick place version by-hand)

(defvar dg-lsp--request nil
  "The request whose answer is awaited, or nil.")

(defvar dg-lsp--timer (timer-create)
  "What will ask next.")

(defvar-local dg-lsp--seen nil
  "The modification tick of the text after the last command.")

(defun dg-lsp--menu-p ()
  "Return non-nil while another completion is being chosen."
  (or (bound-and-true-p completion-in-region-mode)
      (bound-and-true-p company-candidates)
      (bound-and-true-p completion-preview-active-mode)))

(defun dg-lsp--inserting-p ()
  "Return non-nil unless keys are commands of Evil."
  (or (not (bound-and-true-p evil-local-mode))
      (memq (bound-and-true-p evil-state) '(insert emacs))))

(defun dg-lsp--quiet-p ()
  "Return non-nil if this is no time to show something unasked."
  (or executing-kbd-macro
      buffer-read-only
      (dg-lsp--menu-p)
      (not (dg-lsp--inserting-p))
      ;; Eglot does not hear of edits in an indirect buffer.
      (buffer-base-buffer)
      (not (eq (window-buffer) (current-buffer)))
      (and (symbolp this-command)
           (cl-some (lambda (regexp)
                      (string-match-p regexp (symbol-name this-command)))
                    dg-lsp-quiet-commands))))

(defun dg-lsp--schedule ()
  "Ask soon, unless something else happens before."
  (cancel-timer dg-lsp--timer)
  ;; No idle timer: these do not run while Emacs is idle already.
  (setq dg-lsp--timer
        (run-with-timer dg-lsp-delay nil
                        #'dg-lsp--ask-if-fresh (dg-lsp-ghost-tick))))

(defun dg-lsp--ask-if-fresh (tick)
  "Ask if nothing has happened since TICK."
  (dg-lsp-protect
    (when (and (eq (car tick) (selected-window))
               (dg-lsp-ghost-fresh-p tick))
      (with-current-buffer (cadr tick)
        (dg-lsp--ask nil)))))

(defun dg-lsp--ask (by-hand)
  "Ask for completions at point, BY-HAND as in the request."
  (dg-lsp--give-up)
  (when-let* ((server (dg-lsp-current-server)))
    (dg-lsp-server-flush server)
    (let ((request (dg-lsp--make-request
                    :server server :by-hand by-hand
                    :tick (dg-lsp-ghost-tick)
                    :place (dg-lsp-server-place server)
                    :version (dg-lsp-server-version server))))
      (setf (dg-lsp--request-id request) (dg-lsp--send request))
      (setq dg-lsp--request request)
      (dg-lsp--watch))))

(defun dg-lsp--send (request)
  "Send REQUEST, and return its number."
  (dg-lsp-server-send
   (dg-lsp--request-server request) :textDocument/inlineCompletion
   (append (dg-lsp--request-place request)
           `(:context (:triggerKind
                       ,(if (dg-lsp--request-by-hand request) 1 2))))
   (lambda (result) (dg-lsp--answer request result))
   (lambda (_reason) (dg-lsp--answer request nil))))

(defun dg-lsp--give-up ()
  "Want no answer any more."
  (when-let* ((request dg-lsp--request))
    (setq dg-lsp--request nil)
    (dg-lsp-server-cancel (dg-lsp--request-server request)
                          (dg-lsp--request-id request))))

(defun dg-lsp--current-p (request)
  "Return non-nil if REQUEST is the newest and nothing has changed since."
  (and (eq request dg-lsp--request)
       (eq (car (dg-lsp--request-tick request)) (selected-window))
       (dg-lsp-ghost-fresh-p (dg-lsp--request-tick request))))

(defun dg-lsp--answer (request result)
  "Show RESULT if REQUEST is still current."
  (dg-lsp-protect
    (let ((current (dg-lsp--current-p request)))
      (when (eq request dg-lsp--request)
        (setq dg-lsp--request nil))
      (when current
        (with-current-buffer (cadr (dg-lsp--request-tick request))
          (or (dg-lsp-ghost-offer
               (dg-lsp--items (dg-lsp--request-server request) result)
               (dg-lsp--request-by-hand request))
              (when (dg-lsp--request-by-hand request)
                (dg-lsp-explain))))))))

(defun dg-lsp--items (server result)
  "Return the ghost items for RESULT of SERVER, a list or an object with one."
  (mapcar (lambda (item)
            (let ((range (plist-get item :range)))
              (dg-lsp-ghost-item
               (dg-lsp--point server (plist-get range :start))
               (dg-lsp--point server (plist-get range :end))
               (plist-get item :insertText))))
          (if (vectorp result) result (plist-get result :items))))

(defun dg-lsp--point (server position)
  "Return where the POSITION of SERVER is, or point where it gave none."
  (if position (dg-lsp-server-point server position) (point)))

(cl-defmethod dg-lsp-server-hear
  ((server dg-lsp-server) (_method (eql dg/draft))
   &key textDocument position pieces &allow-other-keys)
  "Show PIECES of a draft for POSITION if SERVER was asked about that place.
TEXTDOCUMENT has the version of the text."
  (dg-lsp-protect
    (when-let* ((request dg-lsp--request)
                (place (dg-lsp--request-place request)))
      (when (and (eq server (dg-lsp--request-server request))
                 (equal position (plist-get place :position))
                 (equal (plist-get textDocument :uri)
                        (plist-get (plist-get place :textDocument) :uri))
                 (equal (plist-get textDocument :version)
                        (dg-lsp--request-version request))
                 (dg-lsp--current-p request))
        (with-current-buffer (cadr (dg-lsp--request-tick request))
          (dg-lsp-ghost-sketch
           (mapcar (lambda (piece)
                     (cons (plist-get piece :text)
                           (eq (plist-get piece :settled) t)))
                   pieces)))))))

;;;; After each command

(defun dg-lsp--watch ()
  "Look after the ghost and the request until both are gone."
  (add-hook 'post-command-hook #'dg-lsp--look-after))

(defun dg-lsp--look-after ()
  "Let go of what is not right any more, wherever the user is now."
  (dg-lsp-protect
    (when (and dg-lsp--request
               (not (dg-lsp-ghost-fresh-p
                     (dg-lsp--request-tick dg-lsp--request))))
      (dg-lsp--give-up))
    (when (dg-lsp--menu-p)
      (dg-lsp-ghost-hide)))
  (unless (or (dg-lsp-protect (dg-lsp-ghost-refresh))
              dg-lsp--request)
    (remove-hook 'post-command-hook #'dg-lsp--look-after)))

(defun dg-lsp--post-command ()
  "Ask if the last command has changed the text."
  (dg-lsp-protect
    (unless (eq dg-lsp--seen (buffer-chars-modified-tick))
      (setq dg-lsp--seen (buffer-chars-modified-tick))
      (unless (dg-lsp--quiet-p)
        (dg-lsp--schedule)))))

;;;; Before others

(defun dg-lsp--yield (&rest _)
  "Show nothing beside another completion, which may come by itself."
  (dg-lsp-protect
    (when (dg-lsp--menu-p)
      (dg-lsp-dismiss))))

(dolist (hook '(completion-in-region-mode-hook
                company-completion-started-hook
                completion-preview-active-mode-hook))
  (add-hook hook #'dg-lsp--yield))

(add-hook 'evil-insert-state-exit-hook #'dg-lsp-dismiss)

;;;; Commands on ghost text

(defun dg-lsp--take (measure)
  "Accept the ghost text up to MEASURE.
MEASURE is a function from a text to a number of characters."
  (let ((rest (or (dg-lsp-ghost-rest)
                  (user-error "There is no ghost text here"))))
    (when (dg-lsp-ghost-take (funcall measure rest))
      ;; What is left needs no question.
      (setq dg-lsp--seen (buffer-chars-modified-tick)))))

(defun dg-lsp-accept ()
  "Accept the ghost text."
  (interactive "*")
  (dg-lsp--take #'length))

(defun dg-lsp-accept-word ()
  "Accept the next word of the ghost text."
  (interactive "*")
  (dg-lsp--take #'dg-lsp-ghost-word))

(defun dg-lsp-accept-line ()
  "Accept the next line of the ghost text."
  (interactive "*")
  (dg-lsp--take #'dg-lsp-ghost-line))

(defun dg-lsp-dismiss ()
  "Hide the ghost text."
  (interactive)
  (cancel-timer dg-lsp--timer)
  (dg-lsp--give-up)
  (dg-lsp-ghost-hide))

(defun dg-lsp-next (&optional count)
  "Show the next completion, or the one COUNT further.
Where there is only one yet, ask for others."
  (interactive "*p")
  (unless (dg-lsp-ghost-cycle (or count 1))
    (dg-lsp-server-or-lose)
    (dg-lsp--ask (or count 1))))

(defun dg-lsp-previous (&optional count)
  "Show the completion before this one, or the one COUNT before.
Where there is only one yet, ask for others."
  (interactive "*p")
  (dg-lsp-next (- (or count 1))))

(defun dg-lsp-trigger ()
  "Ask for a completion now."
  (interactive "*")
  (dg-lsp-server-or-lose)
  (dg-lsp--ask 0))

;;;; Keys

(defun dg-lsp--at-line-end (command)
  "Return COMMAND if the ghost text is the end of its line."
  (and (dg-lsp-ghost-ends-line-p) command))

(defvar dg-lsp-ghost-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "TAB") #'dg-lsp-accept)
    ;; Graphical frames have a key of their own, which a mode may bind.
    (define-key map (kbd "<tab>") #'dg-lsp-accept)
    (define-key map [remap forward-word] #'dg-lsp-accept-word)
    (define-key map [remap right-word] #'dg-lsp-accept-word)
    (define-key map [remap move-end-of-line]
                '(menu-item "" dg-lsp-accept-line :filter dg-lsp--at-line-end))
    (define-key map [remap keyboard-quit] #'dg-lsp-dismiss)
    (define-key map (kbd "M-n") #'dg-lsp-next)
    (define-key map (kbd "M-p") #'dg-lsp-previous)
    map)
  "Keys while ghost text shows, before those of any other mode.")

(defvar dg-lsp-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "M-RET") #'dg-lsp-trigger)
    map)
  "Keys of `dg-lsp-mode'.")

(defconst dg-lsp--emulation-maps
  `((dg-lsp-ghost-acceptable . ,dg-lsp-ghost-map))
  "An element for `emulation-mode-map-alists'.")

(add-to-list 'emulation-mode-map-alists 'dg-lsp--emulation-maps)

;;;; The mode

;;;###autoload
(define-minor-mode dg-lsp-mode
  "Show completions from a text-diffusion model while you type.
The server is Eglot's if `dg-lsp-setup' has chosen it for this mode;
otherwise it stands by itself, beside any other language server.

\\{dg-lsp-mode-map}
While ghost text shows:

\\{dg-lsp-ghost-map}"
  :lighter nil
  (cond (dg-lsp-mode
         (setq dg-lsp--seen (buffer-chars-modified-tick))
         (add-hook 'post-command-hook #'dg-lsp--post-command nil t)
         (unless (dg-lsp-eglot-current-server)
           (dg-lsp--attach)))
        (t
         (remove-hook 'post-command-hook #'dg-lsp--post-command t)
         (dg-lsp-dismiss)
         (dg-lsp-connection-detach))))

(defun dg-lsp--attach ()
  "Start a server for this buffer, if it is of a kind that has one.
An error is told and not raised, for this is done by hooks of modes."
  (unless (or (file-remote-p default-directory)
              (buffer-base-buffer)
              ;; Buffers for internal use, such as those in which Org
              ;; fontifies source blocks.
              (string-prefix-p " " (buffer-name)))
    (condition-case-unless-debug trouble
        (dg-lsp-connection-attach)
      (error (message "dg-lsp does not start: %s"
                      (error-message-string trouble))))))

(add-to-list 'mode-line-misc-info
             '(dg-lsp-mode (" [" (:eval (dg-lsp-mode-line)) "] ")))

(defun dg-lsp--follow-eglot ()
  "Switch `dg-lsp-mode' on where Eglot has started dg-lsp, and off after it."
  (cond ((dg-lsp-eglot-current-server)
         (dg-lsp-connection-detach)
         (dg-lsp-mode 1))
        ((not dg-lsp-connection--document)
         (dg-lsp-mode -1))))

(defun dg-lsp--keep-eglot-out ()
  "Let this buffer keep what Eglot would take over and dg-lsp does not have."
  (setq-local eglot-stay-out-of
              (append '("xref" "flymake" "eldoc" "imenu" "company")
                      eglot-stay-out-of)))

;;;###autoload
(defun dg-lsp-setup (&rest modes)
  "Let Eglot run dg-lsp in the major MODES, with ghost text.
Their own Flymake, Xref, Imenu and ElDoc stay in force.  Without this,
`dg-lsp-mode' has a connection of its own."
  (dolist (mode modes)
    (setf (alist-get mode eglot-server-programs) #'dg-lsp-eglot-contact)
    (add-hook (intern (format "%s-hook" mode)) #'dg-lsp--keep-eglot-out))
  (add-hook 'eglot-managed-mode-hook #'dg-lsp--follow-eglot))

(provide 'dg-lsp)
;;; dg-lsp.el ends here
